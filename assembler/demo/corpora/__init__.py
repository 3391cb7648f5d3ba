"""Public texts by domain, read from Debian packages and cleaned.

It may import the modules of `assembler`, but no other sub-package.
"""
