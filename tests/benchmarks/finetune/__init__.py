"""Compare the tokens per second of a finetune with transformers' Qwen2-MoE."""
