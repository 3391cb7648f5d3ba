"""Starts the processes of the service and keeps them running.

The web process never loads it. It may import the modules of `service`, but no other sub-package.
"""
