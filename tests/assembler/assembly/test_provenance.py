"""A provenance holds everything that is needed to make its mix again."""

from dataclasses import replace

import pytest

from assembler.assembly import provenance as locks
from assembler.assembly.provenance import Environment, Provenance
from assembler.jobs import pipeline
from registry.blobs.blobs import LocalBlobs, get_bytes
from tests.assembler.mix_inputs import extended, inputs


def store_provenance(blobs: LocalBlobs) -> Provenance:
    given = inputs(blobs)
    assembled = pipeline.assemble(given, blobs)
    return Provenance.of(
        given,
        environment=Environment.here(),
        assembled=assembled.digest,
        finetuned=None,
        compressed=None,
        blobs=blobs,
    )


def test_the_inputs_are_restored(blobs: LocalBlobs) -> None:
    given = inputs(blobs)
    more = extended(pipeline.assemble(given, blobs), given, blobs)
    known = replace(more, moments_digests=("m", None, "o"), base_moments_digests=("m", "n"))
    for original in (given, more, known):
        provenance = Provenance.of(
            original,
            environment=Environment.here(),
            assembled="a",
            finetuned=None,
            compressed=None,
            blobs=blobs,
        )
        read = Provenance.model_validate_json(get_bytes(blobs, provenance.store(blobs)))
        assert read == provenance
        back = read.inputs(blobs)
        assert back.vectors == tuple(
            tuple(v) if isinstance(v, tuple) else v for v in _single(original.vectors)
        )
        assert replace(back, vectors=()) == replace(original, vectors=())


def test_equal_provenances_have_one_digest(blobs: LocalBlobs) -> None:
    assert store_provenance(blobs).store(blobs) == store_provenance(blobs).store(blobs)


def test_environments_are_compared_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Environment.here()
    assert here.differences(here) == []
    monkeypatch.setattr(locks, "num_threads", lambda _: here.num_threads + 1)
    assert here.differences(Environment.here()) == [
        f"num_threads: {here.num_threads} there, {here.num_threads + 1} here"
    ]


def test_a_record_without_moments_does_not_name_them(blobs: LocalBlobs) -> None:
    assert "moments" not in store_provenance(blobs).model_dump_json()


def _single(vectors: tuple[list[float], ...]) -> list[list[float]]:
    """Round vectors to float32, as the database stores them."""
    import numpy as np

    rows: list[list[float]] = np.array(vectors, np.float32).tolist()
    return rows
