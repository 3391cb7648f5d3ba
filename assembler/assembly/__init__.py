"""Dense checkpoints become a mix, or an existing mix changes: inputs, means, provenance.

It may import `assembler.routing` and what is below it. Free of torch: an assembly takes seconds.
"""
