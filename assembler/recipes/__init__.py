"""What is asked for: the recipe of a mix, named presets, and changes to their fields.

It may import the modules of `assembler`, but no sub-package. Free of torch.
"""
