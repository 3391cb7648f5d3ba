"""What several benchmarks use: cached results, reports, tables in Markdown, processes, the mix.

Imports the product and nothing else of the tests but their tiny models.
"""
