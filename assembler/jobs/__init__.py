"""Jobs: queues and workflows, the worker, and the processes that run one step each.

It may import everything else in `assembler`.
"""
