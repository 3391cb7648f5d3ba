"""Base models that experts may be finetunes of: one list, and how each `config.json` is read.

It may import the modules of `registry`. It knows no torch and no transformers.
"""
