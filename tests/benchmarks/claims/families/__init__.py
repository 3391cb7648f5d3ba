"""Families of experts for the experiments on claims: texts, experts, training."""
