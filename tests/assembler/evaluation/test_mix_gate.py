"""The gate of a mix checks the mix before it reads texts, and judges the served mix."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assembler.evaluation import mix_gate
from assembler.evaluation.mix_gate import check_files, check_routers
from assembler.evaluation.perplexities import GateCheckpoints
from engine.gates import policy
from engine.gates.policy import Policy
from engine.vllm_server import context, engine_command
from registry import cpu_features
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.checkpoints import numpy_tensors
from registry.errors import Incompatible, InvalidCheckpoint, InvalidInput
from tests import tiny
from tests.assembler import tiny_mixes


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "more.json"])
def test_a_mix_with_other_files_than_its_seed_is_refused(name: str, blobs: LocalBlobs) -> None:
    seed, mix = tiny.store_manifest(blobs), tiny_mixes.store_mix(blobs)
    check_files(mix, seed)
    damaged = replace(mix, files=mix.files | {name: put_bytes(blobs, b"{}")})
    with pytest.raises(Incompatible, match="other files than its seed") as refused:
        check_files(damaged, seed)
    [problem] = refused.value.problems
    assert problem.pointer == f"/files/{name}"


def test_a_router_that_does_not_know_an_expert_is_refused(blobs: LocalBlobs) -> None:
    mix, name = tiny_mixes.store_mix(blobs), "model.layers.1.mlp.gate.weight"
    check_routers(mix, blobs)
    rows_ND = np.array(numpy_tensors.read(blobs, mix.tensors[name]))
    rows_ND[2] = 0
    zeroed = numpy_tensors.write(blobs, rows_ND, dtype=mix.tensors[name].dtype)
    damaged = replace(mix, tensors=mix.tensors | {name: zeroed})
    with pytest.raises(InvalidCheckpoint, match="does not know an expert") as refused:
        check_routers(damaged, blobs)
    [problem] = refused.value.problems
    assert (problem.pointer, problem.detail) == (f"/tensors/{name}", "row 2 is zero")
    # A disabled expert receives no tokens.
    check_routers(replace(damaged, config=mix.config | {"disabled_experts": [2]}), blobs)


def test_some_rows_may_be_zero(blobs: LocalBlobs) -> None:
    """A routed seed is at the center of all domains, and attention routers start with zeros."""
    check_routers(tiny_mixes.store_mix(blobs, combine="sum", shared_expert=False), blobs)
    check_routers(tiny_mixes.store_mix(blobs, attention="experts"), blobs)


def test_a_gate_without_any_documents_is_refused(blobs: LocalBlobs, tmp_path: Path) -> None:
    checkpoints = GateCheckpoints(
        seed=tiny.store_manifest(blobs),
        experts={name: tiny.store_manifest(blobs, expert=1) for name in "abc"},
        assembled=tiny_mixes.store_mix(blobs),
        finetuned=None,
    )
    with pytest.raises(InvalidInput, match="so no domain can be judged"):
        mix_gate.gate(
            checkpoints,
            [[], [], []],
            documents_digests=[None] * 3,
            policy=Policy(),
            blobs=blobs,
            log_path=tmp_path / "server.log",
            on_progress=lambda *_: None,
        )


@pytest.mark.slow
def test_a_domain_without_documents_is_not_judged(
    blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_HOME", str(blobs.root.parent))
    names = ("expert-1", "expert-2", "expert-3")
    report = mix_gate.gate(
        GateCheckpoints(
            seed=tiny.store_manifest(blobs),
            experts={n: tiny.store_manifest(blobs, expert=i + 1) for i, n in enumerate(names)},
            assembled=tiny_mixes.store_mix(blobs),
            finetuned=None,
        ),
        [[], *tiny_mixes.expert_documents()[1:]],
        documents_digests=[None, "1" * 64, "2" * 64],
        private={2},
        policy=Policy.model_validate(
            {"prefix_tokens": 8, "completion_tokens": 16, "served": {"min_fdt_75": 8}}
        ),
        blobs=blobs,
        log_path=tmp_path / "server.log",
        on_progress=lambda *_: None,
    )
    assert report.unjudged == ("expert-1",)
    judged = [(domain.domain, domain.documents) for domain in report.domains]
    assert judged == [("expert-2", "1" * 64), ("expert-3", "2" * 64)]
    assert set(report.domains[0].perplexity.experts) == {"expert-2"}
    for domain in report.domains:
        assert domain.routing is not None
        assert tuple(domain.routing.assembled) == names
        assert sum(domain.routing.assembled.values()) == pytest.approx(1)
        assert domain.routing.finetuned is None


@pytest.mark.slow
@pytest.mark.skipif(
    "amx_bf16" in cpu_features.vector_instructions(),
    reason="vLLM 0.32 in bfloat16 ends with an illegal instruction on a CPU with AMX",
)
def test_a_mix_served_in_bfloat16_has_limits_of_its_noise(
    blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where an engine in bfloat16 is farther from the reference than in float32."""
    for module in (mix_gate, policy, context, engine_command):
        monkeypatch.setattr(module, "serving_dtype", lambda: "bfloat16")
    monkeypatch.setenv("NEXUSMIX_HOME", str(blobs.root.parent))
    names = ("expert-1", "expert-2", "expert-3")
    report = mix_gate.gate(
        GateCheckpoints(
            seed=tiny.store_manifest(blobs),
            experts={n: tiny.store_manifest(blobs, expert=i + 1) for i, n in enumerate(names)},
            assembled=tiny_mixes.store_mix(blobs),
            finetuned=None,
            base=None,
            base_domains=frozenset(),
        ),
        tiny_mixes.expert_documents(),
        documents_digests=["0" * 64] * len(names),
        policy=Policy.model_validate(
            {  # A network this small hesitates: in its noise two of 64 tokens differ.
                "prefix_tokens": 8,
                "completion_tokens": 16,
                "served": {"min_fdt_75": 8, "min_equal_share": 0.96},
            }
        ),
        blobs=blobs,
        log_path=tmp_path / "server.log",
        on_progress=lambda *_: None,
    )
    for domain in report.domains:
        assert domain.noise_floor.logprob_difference is not None
        assert domain.noise_floor.logprob_difference > 1e-4
    assert not [failure for failure in report.failures if failure.metric.startswith("served.")]
