"""A mix as a model of vLLM: config, network, router, attention experts, and the weight loader.

It may import `engine.compression` and what is below it. The modules that other processes import
reach neither torch nor vLLM: `plugin`, `model_folder`, and `attribution.nexus_field`.
"""
