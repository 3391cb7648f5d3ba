"""Mixes in the database: requests, changes, selection of experts, states, events, publishing.

It may import `assembler.assembly` and what is below it. Free of torch.
"""
