"""Recipes of mixes, named presets, changes to their fields, and policies of families.

It may import the modules of `assembler`, but no sub-package. Free of torch.
"""
