"""A mix as a model of vLLM: config, network, router, attention experts, and the weight loader.

It may import `engine.compression` and what is below it. Only `plugin` is imported outside of vLLM's
own processes.
"""
