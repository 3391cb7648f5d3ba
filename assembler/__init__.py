"""From a recipe to a finished mix: assembly, training, compression, evaluation, and the jobs.

Sub-packages in order. Each may import the ones above it, and the packages `registry` and `engine`:

1. modules of this folder: tables, content cache, dtype of computation
2. `recipes` and `network`: what is asked for, and the readable network
3. `training`: finetunes of mixes and experts
4. `routing`: initial routers and what they rest on
5. `assembly`: dense checkpoints become a mix
6. `compression` and `evaluation`
7. `mixes`: requests, changes and versions of mixes
8. `planning`: what a mix will cost, before it is made
9. `demo`: the public seed and texts of the demo
10. `jobs`: queues, workflows and the processes that run them
"""
