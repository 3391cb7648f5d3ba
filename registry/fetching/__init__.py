"""Fetch what an expert is imported from to this machine: repositories of a Hub, files at addresses.

Owners fetch on their own computer, workers on the server. Nothing here needs the database or torch.
"""
