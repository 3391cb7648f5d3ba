"""Deployments and the agent that starts, watches and stops one vLLM process for each.

It may import everything else in `engine`.
"""
