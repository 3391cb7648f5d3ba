"""Rows of the registry: families, experts, projections, documents, uploads and artifacts.

It may import everything else in `registry`.
"""
