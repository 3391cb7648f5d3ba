"""Experts that do not fit a family are refused with the tensor or setting that differs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.orm import Session

from assembler.mixes import selection
from assembler.mixes.selection import Selection
from assembler.routing.embedder import embedder_digest
from registry.blobs.blobs import LocalBlobs
from registry.catalog import experts
from registry.catalog.embeddings import Embedders
from registry.checkpoints import manifests
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.database.tables import VersionState
from registry.errors import Problem
from tests.assembler import rows

OTHER_EMBEDDER = "e" * 64


def select(session: Session, blobs: LocalBlobs, *experts: str) -> Selection:
    return selection.select(
        session,
        blobs,
        name="mine",
        family="tiny",
        experts=experts,
        pointers=[f"/experts/{number}" for number in range(len(experts))],
        needs_projection=True,
    )


def stranger(
    session: Session, blobs: LocalBlobs, change: Callable[[Manifest], Manifest]
) -> list[Problem]:
    """Return the problems of selecting expert 1, which fits, and a changed expert 3.

    The family of expert 3 has another seed.
    """
    rows.add_all(session, blobs)
    other = rows.add_family(session, blobs, name="other")
    version = rows.add_expert(session, blobs, other, number=3)
    changed = change(manifests.load(blobs, experts.checkpoint_digest(version)))
    version.manifest_digest = manifests.store(blobs, changed)
    session.flush()
    return list(select(session, blobs, "expert-1", "expert-3").problems)


def with_config(**values: Any) -> Callable[[Manifest], Manifest]:
    """Return a change to a checkpoint with another config and the shapes of that config."""

    def change(manifest: Manifest) -> Manifest:
        architecture = replace(manifest.architecture, **values)
        known = next(iter(manifest.tensors.values())).digest
        tensors = {
            name: TensorEntry("BF16", shape, known)
            for name, shape in architecture.tensor_shapes().items()
        }
        return replace(manifest, config=architecture.to_config(), tensors=tensors)

    return change


def in_float16(manifest: Manifest) -> Manifest:
    return replace(
        manifest,
        tensors={name: replace(e, dtype="F16") for name, e in manifest.tensors.items()},
    )


def with_other_tokenizer(manifest: Manifest) -> Manifest:
    return replace(manifest, files=manifest.files | {"tokenizer.json": "b" * 64})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (with_config(rope_theta=5.0), ["config/rope_theta is 5.0, the family's seed has 10000.0"]),
        (
            with_config(rms_norm_eps=1e-6),
            ["config/rms_norm_eps is 1e-06, the family's seed has 1e-05"],
        ),
        (
            with_config(num_attention_heads=2),
            [
                "config/num_attention_heads is 2, the family's seed has 4",
                "tensor 'model.layers.0.self_attn.o_proj.weight' and 1 like it in other blocks is"
                " BF16 [32, 64], the family's seed has BF16 [32, 128]",
                "tensor 'model.layers.0.self_attn.q_proj.weight' and 1 like it in other blocks is"
                " BF16 [64, 32], the family's seed has BF16 [128, 32]",
            ],
        ),
        (
            with_config(vocab_size=70),
            [
                "config/vocab_size is 70, the family's seed has 64",
                "tensor 'model.embed_tokens.weight' is BF16 [70, 32],"
                " the family's seed has BF16 [64, 32]",
            ],
        ),
        (
            with_config(tie_word_embeddings=False),
            [
                "config/tie_word_embeddings is False, the family's seed has True",
                "tensor 'lm_head.weight' is BF16 [64, 32], the family's seed has none of that name",
            ],
        ),
        (with_other_tokenizer, ["the tensors of 'tiny' and another tokenizer.json"]),
    ],
)
def test_all_differences_are_listed(
    session: Session,
    blobs: LocalBlobs,
    change: Callable[[Manifest], Manifest],
    expected: list[str],
) -> None:
    first, *others = stranger(session, blobs, change)
    assert first == Problem("/experts/1", "'expert-3' is of family 'other', not 'tiny'")
    assert {problem.pointer for problem in others} == {"/experts/1"}
    assert len(others) == len(expected)
    for problem, words in zip(others, expected, strict=True):
        assert words in problem.detail


def test_another_dtype_is_reported_once_for_all_blocks(session: Session, blobs: LocalBlobs) -> None:
    _, *others = stranger(session, blobs, in_float16)
    details = [problem.detail for problem in others]
    assert len(details) == 11
    assert any("'model.norm.weight' is F16 [32], the family's seed has BF16" in d for d in details)


def test_an_expert_that_would_fit_is_named(session: Session, blobs: LocalBlobs) -> None:
    _, hint = stranger(session, blobs, lambda manifest: manifest)
    assert "register it in that family" in hint.detail


def test_a_domain_of_another_embedder_is_refused(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_all(session, blobs)
    version = rows.add_expert(session, blobs, family, number=3, embedded=False)
    (problem,) = select(session, blobs, "expert-1", "expert-3").problems
    assert "is not embedded by 'all-MiniLM-L6-v2'" in problem.detail
    other = Embedders(encoder=OTHER_EMBEDDER, states=OTHER_EMBEDDER)
    rows.embed(session, blobs, version, [1.0] * 8, embedder="bigger", embedders=other)
    (problem,) = select(session, blobs, "expert-1", "expert-3").problems
    assert problem.pointer == "/experts/1"
    assert "embedded by 'bigger' (eeeeeeeeeeee), not by 'all-MiniLM-L6-v2'" in problem.detail


def test_router_inputs_taken_in_another_way_are_refused(
    session: Session, blobs: LocalBlobs
) -> None:
    family = rows.add_all(session, blobs)
    version = rows.add_expert(session, blobs, family, number=3, embedded=False)
    other = Embedders(encoder=embedder_digest(), states=OTHER_EMBEDDER)
    rows.embed(session, blobs, version, [1.0] * 8, embedders=other)
    (problem,) = select(session, blobs, "expert-1", "expert-3").problems
    assert problem.pointer == "/experts/1"
    assert "a running worker does it, and expert-3@1 says when it failed" in problem.detail


def test_an_expert_that_failed_is_refused_with_its_reason(
    session: Session, blobs: LocalBlobs
) -> None:
    family = rows.add_all(session, blobs)
    version = rows.add_expert(session, blobs, family, number=3)
    version.state, version.error = VersionState.FAILED, "tokenizer.json is no tokenizer"
    session.flush()
    for ref in ("expert-3", "expert-3@1"):
        (problem,) = select(session, blobs, "expert-1", ref).problems
        assert problem.pointer == "/experts/1"
        assert "failed, not ready: tokenizer.json is no tokenizer" in problem.detail


def test_a_projection_of_another_embedder_is_refused(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_all(session, blobs)
    rows.add_projection(session, blobs, family, embedder_digest=OTHER_EMBEDDER)
    (problem,) = select(session, blobs, "expert-1", "expert-2").problems
    assert problem.pointer == "/family"
    assert "tiny@2 projects other domain embeddings (eeeeeeeeeeee)" in problem.detail


def test_a_mix_keeps_a_retired_version(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_all(session, blobs)
    version = rows.add_expert(session, blobs, family, number=3)
    version.state = VersionState.RETIRED
    session.flush()
    (problem,) = select(session, blobs, "expert-1", "expert-3@1").problems
    assert problem.pointer == "/experts/1"
    kept = selection.select(
        session,
        blobs,
        name="mine",
        family="tiny",
        experts=["expert-1@1", "expert-3@1"],
        pointers=["/base", "/base"],
        needs_projection=False,
        kept=["expert-3@1"],
    )
    assert kept.problems == ()
