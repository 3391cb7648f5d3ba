"""Gate reports, comparisons and verification, for pages and terminals.

Pure functions from measured reports to tables and HTML. It may import the modules of `service`, but
no other sub-package.
"""
