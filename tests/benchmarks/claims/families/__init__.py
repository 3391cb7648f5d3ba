"""The families of experts that claims are measured on: texts, experts, their training."""
