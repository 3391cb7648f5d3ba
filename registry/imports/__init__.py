"""Sources of experts that are no checkpoint of their own: what they hold, and how they become one.

Free of torch.
"""
