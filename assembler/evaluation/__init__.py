"""Measures a mix against its parts, and any two models against each other, for the gates.

It may import `assembler.assembly` and what is below it, but not `assembler.compression`.
"""
