"""Who spoke: which experts compute the tokens of a request, and requests that switch experts off.

The worker masks routers and reads their weights; the API process reads the field `nexus` of
requests and fills it into answers. Only on a CPU.
"""
