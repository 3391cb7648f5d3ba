"""The command line, one module for each group of commands.

Commands import what they need when they run. It may import every sub-package of `service`
except `web`, `api` and `ui`.
"""
