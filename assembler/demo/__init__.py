"""The demo's public seed and, in `corpora`, its public texts.

It may import the modules of `assembler`, but no other sub-package.
"""
