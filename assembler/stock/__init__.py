"""A checkpoint rewritten for programs that know no mixes: layout, tensors, shards, model card.

It may import `registry` and what is below it. Free of torch: one tensor is in memory at a time.
"""
