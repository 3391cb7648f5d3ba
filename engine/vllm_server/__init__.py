"""One vLLM server: its command line and environment, its context and memory, where it listens.

It knows no deployment, and no table. It may import everything in `engine` but `serving`.
"""
