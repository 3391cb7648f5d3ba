"""Measure how long it takes from a request for a mix to the first token of its preview."""
