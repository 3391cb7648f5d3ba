"""Tokens per second of a finetune against transformers' Qwen2-MoE."""
