"""The model card of a rewritten checkpoint: what it is made of, by whom, and how to load it."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from assembler.stock import layout
from assembler.stock.layout import QWEN3_NEXT
from registry import licenses
from registry.checkpoints.manifests import Manifest

# Names of licenses that Hugging Face knows; all others have to be called "other" there.
HUB_LICENSES = frozenset({"Apache-2.0", "MIT", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0"})
# What Markdown or HTML could take for more than text.
MARKUP = re.compile(r"([\\`*_\[\]|<>#~$&])")


@dataclass(frozen=True, kw_only=True)
class Work:
    """A checkpoint that another was made from: its owner's statements, and its manifest's digest.

    `license` is an SPDX expression. `notes` say where it was fetched from and what was changed.
    """

    ref: str
    license: str
    digest: str | None
    description: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Origins:
    """What a checkpoint was made from: the seed of its family, its experts, and the recipe.

    An expert is made from its seed alone and is its own expert; it has no recipe.
    """

    ref: str
    seed: Work
    experts: tuple[Work, ...]
    recipe: Mapping[str, Any] | None = None

    @property
    def license(self) -> str:
        """The license of the whole, as an SPDX expression."""
        return licenses.combine(work.license for work in (self.seed, *self.experts))


def render(manifest: Manifest, origins: Origins) -> str:
    """Return the text of the model card, Markdown behind the fields that Hugging Face reads."""
    return "\n".join(
        [
            *_fields(origins.license),
            f"# {_text(origins.ref)}",
            "",
            *_summary(manifest, origins),
            "",
            *_parts(origins),
            "",
            *_how_to_load(manifest),
            "",
            *_how_made(manifest, origins),
        ]
    )


def _fields(license: str) -> Iterator[str]:
    yield "---"
    if license in HUB_LICENSES:
        yield f"license: {license.lower()}"
    else:
        yield "license: other"
        yield f"license_name: {json.dumps(license)}"
    yield "library_name: transformers"
    yield "pipeline_tag: text-generation"
    yield "tags:"
    yield "- nexusmix"
    yield "---"
    yield ""


def _summary(manifest: Manifest, origins: Origins) -> Iterator[str]:
    a = manifest.architecture
    if not a.num_experts:
        yield f"A dense model of the family `{origins.seed.ref}`, written by nexusmix."
        return
    numbers = layout.enabled_experts(a)
    shared = "" if not a.shared_expert else " beside a shared one, the FFN of the seed"
    each = min(a.num_experts_per_tok, len(numbers))
    names = ", ".join(_text(a.expert_names[n]) for n in numbers if n < len(a.expert_names))
    yield (
        f"A mixture of {len(numbers)} experts made by nexusmix ({names}). Each token passes"
        f" {each} of them{shared}."
    )
    if disabled := [a.expert_names[number] for number in a.disabled_experts]:
        yield f"Left out, since the mix has them disabled: {_text(', '.join(disabled))}."


def _parts(origins: Origins) -> Iterator[str]:
    yield "## Made from"
    yield ""
    yield "| part | license | description | SHA-256 of its checkpoint |"
    yield "| --- | --- | --- | --- |"
    kinds = ["seed", *("expert" for _ in origins.experts)]
    for kind, work in zip(kinds, (origins.seed, *origins.experts), strict=True):
        cells = f"{kind} {_text(work.ref)} | {_text(work.license)} | {_text(work.description)}"
        yield f"| {cells} | {work.digest or 'unknown'} |"
    yield ""
    yield f"All of them together: {_text(origins.license)}. This is no legal advice."
    for work in (origins.seed, *origins.experts):
        if work.notes:
            yield ""
            yield f"- {_text(work.ref)}: {_text('; '.join(work.notes))}"


def _how_to_load(manifest: Manifest) -> Iterator[str]:
    name = layout.class_name(manifest)
    yield "## Load it"
    yield ""
    yield f"The layout is `{name}`, which vLLM and transformers have. No other code is needed."
    yield ""
    yield "```python"
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
    yield ""
    yield 'tokenizer = AutoTokenizer.from_pretrained("FOLDER")'
    yield 'model = AutoModelForCausalLM.from_pretrained("FOLDER", dtype="float32")'
    yield "```"
    yield ""
    yield "```sh"
    yield "vllm serve FOLDER"
    yield "```"
    yield ""
    yield "In float32 the logits are those of the original. Narrower dtypes round in another order."
    if manifest.architecture.num_experts and name == QWEN3_NEXT:
        yield (
            "This layout stores each weight of a norm less one. In bfloat16 weights near 0 then"
            " lose digits: prefer float32."
        )
    if manifest.architecture.num_experts and layout.is_for_llama_cpp(manifest):
        yield ""
        yield "llama.cpp's converter makes one GGUF file of it, from which llama.cpp answers:"
        yield ""
        yield "```sh"
        yield "python convert_hf_to_gguf.py FOLDER --outtype bf16"
        yield "```"


def _how_made(manifest: Manifest, origins: Origins) -> Iterator[str]:
    yield "## How it was made"
    yield ""
    yield f"SHA-256 of the original's manifest: `{manifest.digest}`"
    if origins.recipe is not None:
        fields = {name: value for name, value in origins.recipe.items() if name != "gates"}
        yield ""
        yield "```json"
        yield json.dumps(fields, indent=2)
        yield "```"
    yield ""


def _text(text: str) -> str:
    """Return somebody's text on one line, without meaning to Markdown, HTML or a terminal."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return MARKUP.sub(r"\\\1", " ".join(line.split()))
