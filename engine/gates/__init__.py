"""Acceptance: limits and policies, verdicts over comparisons, and reports.

It may import `engine.divergence`, the modules of `engine`, and `registry`. Free of torch.
"""
