"""The readable network in torch: dense and mixture, its layers, and a runner that compares it.

It may import no other sub-package of `assembler`.
"""
