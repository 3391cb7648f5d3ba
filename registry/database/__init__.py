"""The PostgreSQL database: the embedded server, sessions and transactions, tables of the catalog.

It may import the modules of `registry`, but no sub-package.
"""
