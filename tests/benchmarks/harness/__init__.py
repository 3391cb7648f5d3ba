"""Shared by benchmarks: cached results, reports, tables in Markdown, processes, the demo mix.

It may import the product and the tiny models of the tests.
"""
