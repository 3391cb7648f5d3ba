"""Measure how long the gate of a mix takes, by what is known beforehand."""
