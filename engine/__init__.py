"""Running and judging networks: processes, comparisons of outputs, gates, vLLM, deployments.

Sub-packages in order. Each may import the ones above it, and `registry`:

1. `threads` and `vllm_build`; `launch`: starts processes; `divergence`: compares outputs, and
   imports nothing of this repository
2. `gates`: rules that turn comparisons into a verdict, and their reports
3. `compression`: which parts can be made smaller, and the curve of a search
4. `vllm_plugin`: runs a mix inside vLLM
5. `vllm_server`: one vLLM process: how it is started, and what it needs
6. `serving`: deployments, and the agent that keeps vLLM processes running for them
"""
