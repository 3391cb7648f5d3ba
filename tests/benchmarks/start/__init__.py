"""Measure the cold start of an engine, from nothing and forked, to its first token."""
