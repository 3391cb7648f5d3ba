"""Initial routers: text encoder, router inputs of experts, family projection, rows.

It may import `assembler.training` and what is below it.
"""
