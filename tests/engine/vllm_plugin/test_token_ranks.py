"""Ranks of tokens beside their logprobs."""

import torch

from engine.vllm_plugin import token_ranks


def test_ranks_count_what_is_at_least_as_likely() -> None:
    logprobs = torch.randn(7, 301, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    logprobs[3] = -1.0  # all alike
    chosen = logprobs[:, 5:6]
    expected = (logprobs >= chosen).sum(-1)
    found = token_ranks.count_at_least(logprobs, chosen)
    assert found.dtype == expected.dtype
    assert found.tolist() == expected.tolist()
    assert found[3] == 301
