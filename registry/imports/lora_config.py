"""Read the `adapter_config.json` of a LoRA or DoRA adapter as peft writes it.

A field that is set and not known here may change what the adapter computes, so it is refused by its
name.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from registry.errors import InvalidCheckpoint, Problem, pointer

# They say how an adapter was trained, or what its tensors say themselves.
HARMLESS = {
    "alora_invocation_tokens",
    "arrow_config",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    # peft ignores it for linear layers, and these networks have no other.
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "modules_to_save",
    "parent_library",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "tuner_layer_cls",
}
# These starts change the weights of the base, so that the adapter fits the changed ones only.
CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
# The name of a module, or its last parts.
PLAIN_KEY = re.compile(r"\^?[\w.]+\$?")
MAX_RANK = 2**20

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """What a merge needs of an adapter's config.

    `rank` and `alpha` are those of modules that `rank_pattern` and `alpha_pattern` do not name.
    `base_model` is the name under which the adapter's owner had the base model.
    """

    rank: int
    alpha: float
    rank_scaling_root: bool = False
    is_dora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    base_model: str | None = None

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Read the content of `adapter_config.json`.

        Raises InvalidCheckpoint with every field that is wrong or not supported.
        """
        if problems := tuple(_problems(config)):
            raise InvalidCheckpoint("the adapter's config is refused", problems=problems)
        base_model = config.get("base_model_name_or_path")
        return cls(
            rank=config["r"],
            alpha=config["lora_alpha"],
            rank_scaling_root=bool(config.get("use_rslora")),
            is_dora=bool(config.get("use_dora")),
            rank_pattern=config.get("rank_pattern") or {},
            alpha_pattern=config.get("alpha_pattern") or {},
            base_model=base_model if isinstance(base_model, str) and base_model else None,
        )

    def rank_of(self, module: str) -> int:
        """Return the rank of a module, named as in the network."""
        return _matching(self.rank_pattern, module, self.rank)

    def scaling_of(self, module: str) -> float:
        """Return what the product of a module's matrices is multiplied with.

        It is alpha / rank (LoRA, section 4.1), or alpha / sqrt(rank) (rsLoRA, section 3).
        """
        rank = self.rank_of(module)
        alpha = _matching(self.alpha_pattern, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.rank_scaling_root else rank)


READ = {"r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern"}


def _problems(config: Mapping[str, Any]) -> Iterator[Problem]:
    kind = config.get("peft_type")
    if kind != "LORA":
        detail = f"is {kind!r}: only LoRA and DoRA, which peft calls 'LORA', can be merged"
        yield Problem("/config/peft_type", detail)
        return
    if not _is_rank(config.get("r")):
        yield Problem("/config/r", f"is {config.get('r')!r}, expected a rank of at least 1")
    if not _is_alpha(config.get("lora_alpha")):
        yield Problem("/config/lora_alpha", f"is {config.get('lora_alpha')!r}, expected a number")
    for name, is_right in (("rank_pattern", _is_rank), ("alpha_pattern", _is_alpha)):
        pattern = config.get(name)
        if pattern is not None and not isinstance(pattern, dict):
            yield Problem(pointer("config", name), "must be an object of module names")
            continue
        for key, value in (pattern or {}).items():
            if not PLAIN_KEY.fullmatch(key):
                detail = "is a regular expression: write the names of the modules instead"
                yield Problem(pointer("config", name, key), detail)
            elif not is_right(value):
                yield Problem(pointer("config", name, key), f"is {value!r}, expected a number")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGE_THE_BASE):
        detail = (
            f"is {start!r}, which changes the weights of the base before training: convert the"
            " adapter to one of the unchanged base (`path_initial_model_for_weight_conversion` of"
            " peft's `save_pretrained`)"
        )
        yield Problem("/config/init_lora_weights", detail)
    if config.get("alora_invocation_tokens"):
        detail = "works from certain tokens on only, so it cannot be merged into weights"
        yield Problem("/config/alora_invocation_tokens", detail)
    for name, value in config.items():
        if name not in HARMLESS | READ and value not in (None, False, {}, []):
            yield Problem(pointer("config", name), "is set, and not known here: it is not merged")


def _is_rank(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_RANK


def _is_alpha(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _matching(pattern: Mapping[str, Number], module: str, default: Number) -> Number:
    """Return the value of the first key that is a module's name or ends it, as peft finds it."""
    for key, value in pattern.items():
        is_whole, name = key.startswith("^"), key.strip("^$")
        if module == name or (not is_whole and module.endswith(f".{name}")):
            return value
    return default
