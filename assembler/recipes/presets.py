"""Presets: named recipes of our own, of the papers, and baselines for comparison.

Values that a paper does not state are ours; the comments name them.
"""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError

from assembler.recipes.field_changes import changed_fields, mistake_text, read
from assembler.recipes.recipe import KINDS, Assembly, Finetune, Preset
from engine.compression.int8_curve import Compression
from registry.errors import Problem, pointer

# One line on each preset.
DESCRIPTIONS: Mapping[Preset, str] = {
    "nexus": "The seed for every token, and one expert, chosen by the family projection.",
    "nexus-paper": "Nexus as published: the expert is added, the projection learned from the mix.",
    "linear": "As nexus, with a plain router that starts at random.",
    "mlp": "As nexus, with a router of one hidden layer and as many parameters.",
    "flexolmo": "As nexus, with router rows that are mean document vectors of the seed.",
    "btx": "Branch-Train-MiX: the seed is routed too, two experts for each token.",
    "bam": "Branch-Attend-Mix: attention of the experts too, each with its own keys and values.",
    "bam-shared-kv": "Branch-Attend-Mix with the keys and values of all experts averaged.",
    "merge": "No mixture: the mean of the seed and the experts, as small as one of them.",
}

# Our presets average by regression, which no paper of theirs does.
_OURS: dict[str, Any] = {"averaging": "regression"}
# Nexus' own baseline (arXiv 2408.15901, section 4.3): only the router differs from `nexus`.
_LINEAR: dict[str, Any] = {"router": "linear", "router_init": "random"}
# Branch-Train-MiX (arXiv 2403.07816, section 3.2): the seed is routed, softmax after the top 2.
_BTX: dict[str, Any] = _LINEAR | {
    "combine": "sum",
    "shared_expert": False,
    "experts_per_token": 2,
    "norm_topk_prob": True,
}
# Branch-Attend-Mix (arXiv 2408.08274, section 3): the seed is routed, softmax before the top 1.
_BAM: dict[str, Any] = _LINEAR | {"combine": "sum", "shared_expert": False, "attention": "experts"}

_ASSEMBLY: Mapping[Preset, Mapping[str, Any]] = {
    "nexus": _OURS,
    "nexus-paper": {"combine": "sum", "router_init": "random"},
    "linear": _OURS | _LINEAR,
    "mlp": _OURS | {"router": "mlp", "router_init": "random"},
    # FlexOlmo (arXiv 2507.07024, section 3.3): rows are mean document vectors of the hidden size,
    # without a learned projection.
    "flexolmo": _OURS | {"router": "linear", "router_init": "documents"},
    "btx": _BTX,
    "bam": _BAM,
    "bam-shared-kv": _BAM | {"attention": "experts-shared-kv"},
    "merge": {},
}


def _at_rate(rate: float) -> dict[str, float]:
    return {"learning_rate": rate, "router_learning_rate": rate}


# The papers use no domain labels and train all weights for billions of tokens. The learning rate is
# Nexus' final one, since its peak is meant for such long training.
_PAPER: dict[str, Any] = {"train": "all", "domain_weight": 0.0} | _at_rate(3e-4)
_FINETUNE: Mapping[Preset, Mapping[str, Any]] = {
    # Nexus, section 5.4.
    "nexus-paper": _PAPER | {"load_balance_weight": 0.05},
    # BTX, section 4.2.
    "btx": _PAPER | {"load_balance_weight": 0.01} | _at_rate(1e-4),
    # BAM states no weights; these come from BTX and ST-MoE (arXiv 2202.08906).
    "bam": _PAPER | {"load_balance_weight": 0.01, "z_loss_weight": 0.001},
    "bam-shared-kv": _PAPER | {"load_balance_weight": 0.01, "z_loss_weight": 0.001},
    "merge": _PAPER,
}
# Of the default finetune. With fewer tokens it does not quite reach the right experts (docs,
# claims).
TOKENS_PER_EXPERT = 8_192

PRESETS: tuple[Preset, ...] = get_args(Preset)


# The preset of a request that names none.
DEFAULT: Preset = "nexus"


def assembly(preset: Preset) -> Assembly:
    """Return the assembly of a preset."""
    return Assembly.model_validate({"preset": preset, **_ASSEMBLY.get(preset, {})})


def tokens_per_expert(preset: Preset) -> int:
    """Return the default number of finetune tokens for each expert of a mix."""
    # A mean of networks has no routers to train.
    return 0 if KINDS[preset] == "dense_merge" else TOKENS_PER_EXPERT


def finetune(preset: Preset, *, num_experts: int) -> Finetune:
    """Return the finetune of a preset for a mix of `num_experts` experts."""
    tokens = num_experts * tokens_per_expert(preset)
    return Finetune.model_validate({"tokens": tokens, **_FINETUNE.get(preset, {})})


def changed(preset: Preset) -> dict[str, Any]:
    """Return the fields of a preset that differ from the default preset; see `changed_fields`."""
    fields = changed_fields(assembly(preset), assembly(DEFAULT))
    fields.pop("preset", None)
    # With equal numbers of experts, so that tokens differ only if a preset has none.
    changed_finetune, default_finetune = (
        finetune(each, num_experts=1) for each in (preset, DEFAULT)
    )
    return fields | changed_fields(changed_finetune, default_finetune, prefix="finetune.")


def find(preset: str) -> tuple[Preset, list[Problem]]:
    """Return the preset with a name; if there is none, the default preset and a problem."""
    known = next((name for name in PRESETS if name == preset), None)
    if known is not None:
        return known, []
    detail = f"{preset!r} is no preset; there are {', '.join(PRESETS)}"
    return DEFAULT, [Problem("/preset", detail)]


def read_assembly(preset: Preset, changes: Mapping[str, Any]) -> tuple[Assembly, list[Problem]]:
    """Return the assembly of a preset with `changes`, and their problems; see `field_changes`."""
    return read(Assembly, assembly(preset).model_dump(), changes)


def read_finetune(
    preset: Preset, changes: Mapping[str, Any], *, num_experts: int
) -> tuple[Finetune, list[Problem]]:
    """Return the finetune of a preset with `changes`, and their problems; see `field_changes`."""
    known = finetune(preset, num_experts=num_experts).model_dump()
    return read(Finetune, known, changes, at="finetune")


def read_compression(
    fields: Mapping[str, Any] | None,
) -> tuple[Compression | None, list[Problem]]:
    """Return the requested compression, None without one, and its problems.

    No preset compresses, so the fields are not changes.
    """
    if not fields:
        return None, []
    try:
        return Compression.model_validate(fields, strict=True), []
    except ValidationError as error:
        problems = [
            Problem(pointer("compress", *e["loc"]), mistake_text(Compression, e))
            for e in error.errors()
        ]
    return None, problems
