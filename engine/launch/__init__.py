"""Starts commands, on this machine or on a Ray cluster, and ends them with all descendants.

It may import `registry`, but no other sub-package of `engine`.
"""
