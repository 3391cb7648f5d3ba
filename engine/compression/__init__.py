"""What a compression chooses from: int8 units, components to prune, and the curve of a search.

It may import `engine.gates` and what is below it. Free of torch.
"""
