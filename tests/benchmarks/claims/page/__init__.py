"""The page of claims: figures, tables and plots from the results."""
