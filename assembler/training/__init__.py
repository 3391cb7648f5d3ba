"""Training: batches, losses, steps, checkpoints, many processes; finetunes of mixes and experts.

It may import `assembler.recipes` and `assembler.network`.
"""
