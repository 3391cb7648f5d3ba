"""Measure the gateway beside LiteLLM's proxy, in front of one engine that answers at once."""
