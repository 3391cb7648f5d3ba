"""A gate does not read again what was measured of an expert when it was registered."""

import pytest

from assembler.evaluation import general_text, parent_measurements, perplexities
from assembler.evaluation.perplexities import GateCheckpoints, HeldOut
from assembler.network import network_runner
from assembler.network.network_runner import ReadText
from assembler.training.batches import TokenReader, held_out_windows
from engine.gates.mix_gate import WINDOW_TOKENS
from engine.gates.policy import Policy
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog import documents
from tests import tiny
from tests.assembler import tiny_mixes
from tests.assembler.evaluation.test_general_text import public


def test_a_gate_reads_only_the_mix(blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    seed, expert = tiny.store_manifest(blobs), tiny.store_manifest(blobs, expert=1)
    own = tiny_mixes.expert_documents()[0]
    general = general_text.read(put_bytes(blobs, documents.serialize(public())), blobs)
    assert general is not None
    parent_measurements.measure(expert, own, seed=seed, general=general, blobs=blobs)

    num_tokens, reader = Policy().tokens_per_domain, TokenReader.of(seed, blobs)
    [windows] = held_out_windows(
        reader, [own], length=WINDOW_TOKENS, count=num_tokens // WINDOW_TOKENS
    )
    read: list[int] = []

    def read_text(network: object, windows: object) -> ReadText:
        read.append(1)
        return ReadText(log_perplexity=1.0, first_choices=[])

    monkeypatch.setattr(network_runner, "read", read_text)
    perplexities.measure(
        GateCheckpoints(
            seed=seed,
            experts={"law": expert},
            assembled=tiny_mixes.store_mix(blobs),
            finetuned=None,
        ),
        HeldOut(domains={"law": windows}, general=general.windows(reader, num_tokens=num_tokens)),
        blobs=blobs,
        on_progress=lambda *_: None,
    )
    # The mix on the text of its domain, and on general text.
    assert len(read) == 2
