"""Measure the cost and the results of int8 searches."""
