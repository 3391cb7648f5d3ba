"""What a mix will take before it is made: memory, disk, time, and warnings.

It may import `assembler.mixes` and what is below it. Free of torch.
"""
