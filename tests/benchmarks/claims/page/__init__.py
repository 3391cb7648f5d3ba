"""The page of claims: figures of the results, tables and plots."""
