"""Subjects of compression: the seed, an expert and the demo's mix, with texts of their own."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from engine.compression.measures import ProbeSize
from registry.catalog.documents import Document, split_held_out
from registry.checkpoints.manifests import Manifest
from tests.benchmarks.harness.demo_mix import GENERAL, DemoMix

Kind = Literal["seed", "expert", "mix"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PREFIX_TOKENS = 16


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A checkpoint, and documents of each of its domains.

    Searches choose on every other held-out document and are judged on the others. Retraining uses
    the training documents.
    """

    name: str
    manifest: Manifest
    documents: Mapping[str, Sequence[Document]]

    @property
    def choosing(self) -> list[list[Document]]:
        """The documents to choose on, by domain."""
        return [split_held_out(documents)[0] for documents in self.documents.values()]

    @property
    def judging(self) -> list[list[Document]]:
        """The documents to judge on, by domain."""
        return [split_held_out(documents)[1] for documents in self.documents.values()]

    @property
    def learning(self) -> list[list[Document]]:
        """The documents to retrain on, by domain."""
        return [[d for d in each if d.split == "train"] for each in self.documents.values()]


def of(demo: DemoMix, kinds: Sequence[Kind] = KINDS) -> Iterator[Subject]:
    """Return the subjects of these kinds; the expert is the demo's first."""
    expert = next(iter(demo.experts))
    general = {name: demo.public[name] for name in GENERAL}
    known = {
        "seed": Subject(name=f"{demo.name}, seed", manifest=demo.seed, documents=general),
        "expert": Subject(
            name=f"expert {expert}",
            manifest=demo.experts[expert],
            documents={expert: demo.documents[expert]},
        ),
        "mix": Subject(
            name=f"mix of {len(demo.experts)} experts", manifest=demo.mix, documents=demo.documents
        ),
    }
    return (known[kind] for kind in kinds)


def add_options(
    parser: argparse.ArgumentParser,
    *,
    prompts: int,
    completion_tokens: int,
    judging_prompts: int,
) -> None:
    """Add options for the subjects, and for the amounts of text to choose on and to judge on."""
    parser.add_argument(
        "--subjects", nargs="+", choices=KINDS, default=KINDS, help="the result keeps the others"
    )
    parser.add_argument("--prompts", type=int, default=prompts, help="to choose on")
    parser.add_argument("--completion-tokens", type=int, default=completion_tokens)
    parser.add_argument("--judging-prompts", type=int, default=judging_prompts)
    parser.add_argument("--judging-tokens", type=int, default=64, help="of each continuation")


def known(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the result of an earlier run, empty if there is none."""
    if chosen.quick or not chosen.output.exists():
        return {}
    figures: dict[str, Any] = json.loads(chosen.output.read_text())
    return figures


def texts(chosen: argparse.Namespace) -> tuple[ProbeSize, ProbeSize]:
    """Return the amounts of text to choose on and to judge on."""
    choosing = ProbeSize(
        prompts=chosen.prompts,
        prefix_tokens=PREFIX_TOKENS,
        completion_tokens=chosen.completion_tokens,
    )
    judging = ProbeSize(
        prompts=chosen.judging_prompts,
        prefix_tokens=PREFIX_TOKENS,
        completion_tokens=chosen.judging_tokens,
    )
    return choosing, judging
