"""Compare models of the library `transformers`. Needs torch and transformers."""

from collections.abc import Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.divergence.torch_runner import Logits, TorchRunner


def from_folder(folder: Path | str) -> TorchRunner:
    """Return a runner of a Hugging Face folder, in float32 on the CPU. Nothing is downloaded.

    Texts end at the end-of-text tokens of the folder's generation config. Raises OSError or
    ValueError when transformers cannot load the folder.
    """
    # The import of transformers takes seconds.
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    ends = model.generation_config.eos_token_id
    return of_model(model, stop_token_ids=set(ends if isinstance(ends, list) else [ends]) - {None})


def of_model(model: Any, *, stop_token_ids: Set[int] = frozenset()) -> TorchRunner:
    """Return a runner of a causal language model in evaluation mode, with its key-value cache."""

    def last(tokens_BT: Tensor, count: int) -> Tensor:
        logits_BTV: Tensor = model(tokens_BT, use_cache=False, logits_to_keep=count).logits
        return logits_BTV

    return TorchRunner(
        lambda tokens_BT: model(tokens_BT, use_cache=False).logits,
        last_logits=last,
        new_decoder=lambda: _cached_step(model),
        stop_token_ids=stop_token_ids,
        device=model.device,
    )


def _cached_step(model: Any) -> Logits:
    """Return a function that reads the next tokens of one batch with a new key-value cache."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)

    def step(tokens_BT: Tensor) -> Tensor:
        logits_BTV: Tensor = model(
            tokens_BT, past_key_values=cache, use_cache=True, logits_to_keep=1
        ).logits
        return logits_BTV

    return step
