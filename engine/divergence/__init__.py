"""Compare what two language models write, token by token: FDT, SDT, DPPL (arXiv 2311.01544).

A library of its own: it imports nothing else of nexusmix. `metrics`, `aggregates` and `noise` need
NumPy, `torch_runner` torch, `transformers_runner` transformers, `server_runner` httpx.
"""
