"""Smaller networks: int8 by search, pruning by share, removal of what is zero, and retraining.

It may import `assembler.assembly` and what is below it, but not `assembler.evaluation`.
"""
