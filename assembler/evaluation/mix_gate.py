"""Measure a mix for its gate: perplexities, and the served candidate against the reference network.

The server starts while the reference network writes its texts, since starting takes longest.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assembler.evaluation import mix_gate_stages, perplexities, perturbation, reference_cache
from assembler.evaluation.general_text import GeneralText
from assembler.evaluation.perplexities import GateCheckpoints, HeldOut
from assembler.evaluation.runner_errors import as_ours
from assembler.network import network_runner
from assembler.network.model import Network
from assembler.progress import OnCount
from assembler.training.batches import TokenReader, held_out_windows
from engine.divergence import noise
from engine.divergence.metrics import Continuation, Reading
from engine.gates.general_gate import GENERAL_TEXT, GeneralMeasurement
from engine.gates.mix_gate import WINDOW_TOKENS, GateReport, Measurements, judge
from engine.gates.policy import Policy
from engine.gates.report import Construction
from engine.vllm_build import serving_dtype
from engine.vllm_server import vllm_process
from engine.vllm_server.vllm_process import Server
from registry.blobs.blobs import BlobStore
from registry.catalog.documents import Document
from registry.checkpoints import numpy_tensors
from registry.checkpoints.int8_config import int8_modules
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.tensor_names import is_router_rows
from registry.errors import Incompatible, InvalidCheckpoint, InvalidInput, Problem, pointer


@as_ours()
def gate(
    checkpoints: GateCheckpoints,
    documents: Sequence[Sequence[Document]],
    *,
    documents_digests: Sequence[str | None],
    private: Collection[int] = (),
    policy: Policy,
    general: GeneralText | None = None,
    construction: Construction | None = None,
    blobs: BlobStore,
    log_path: Path,
    find_server: Callable[[Manifest], Server | None] = lambda candidate: None,
    on_progress: OnCount,
) -> GateReport:
    """Measure the candidate on the held-out documents of each expert, and judge it.

    `documents` and their digests are in the order of `checkpoints.experts`. A domain without
    documents is not judged, and those at the positions in `private` are not quoted. `construction`
    is what was checked before, for the report. `find_server` returns a server that serves the
    candidate already. Without one, a server is started, which writes to `log_path`. Raises the
    errors of `check_files` and `check_routers` before anything is read, InvalidInput without any
    domain to judge, for a domain with too little text or a threshold beyond the noise floor, and
    EngineFailed when the server fails.
    """
    check_files(checkpoints.candidate, checkpoints.seed)
    check_routers(checkpoints.candidate, blobs)
    reader = TokenReader.of(checkpoints.seed, blobs)
    names = list(checkpoints.experts)
    kept = {i: digest for i, digest in enumerate(documents_digests) if digest is not None}
    judged, digests = list(kept), list(kept.values())
    if not judged:
        raise InvalidInput("no expert of this mix keeps documents, so no domain can be judged")
    domains, documents = [names[i] for i in judged], [documents[i] for i in judged]
    windows = _checked_windows(
        reader, documents, judged, length=WINDOW_TOKENS, num_tokens=policy.tokens_per_domain
    )
    prompts = _checked_windows(
        reader,
        documents,
        judged,
        length=policy.prefix_tokens,
        num_tokens=policy.prompts_per_domain * policy.prefix_tokens,
    )
    on_general, general_prompts = None, None
    if general is not None:
        on_general = general.windows(reader, num_tokens=policy.tokens_per_domain)
        general_prompts = general.windows(
            reader,
            length=policy.prefix_tokens,
            num_tokens=policy.prompts_per_domain * policy.prefix_tokens,
        )
    measured = perplexities.measure(
        checkpoints,
        HeldOut(domains=dict(zip(domains, windows, strict=True)), general=on_general),
        with_baselines=policy.measure_baselines,
        blobs=blobs,
        on_progress=on_progress,
    )
    candidate = checkpoints.candidate
    found = find_server(candidate)
    own = vllm_process.serving(candidate, blobs=blobs, log_path=log_path)
    with own if found is None else nullcontext(found) as server:
        every = prompts if general_prompts is None else [*prompts, general_prompts]
        texts, noisy = _read_reference(candidate, every, policy, blobs)
        others = mix_gate_stages.readings_of_other_mixes(
            checkpoints, dict(zip(domains, texts[: len(domains)], strict=True)), blobs
        )
        read_general = None
        if general is not None and on_general is not None:
            read_general = GeneralMeasurement(
                documents=general.digest,
                perplexity=measured[GENERAL_TEXT],
                **_on_general(checkpoints.seed, texts[len(domains) :], noisy, blobs),
            )
        server.wait_ready()
        served = [server.runner().read(domain) for domain in texts[: len(domains)]]
    measurements = [
        Measurements(
            domain=domain,
            documents=digests[i],
            is_private=judged[i] in private,
            perplexity=measured[domain],
            routing=perplexities.routing(checkpoints, windows[i], blobs),
            continuations=texts[i],
            variations=noisy[i],
            readings={"served": served[i], **others[domain]},
        )
        for i, domain in enumerate(domains)
    ]
    return judge(
        policy,
        manifest_digest=candidate.digest,
        stages=mix_gate_stages.sides(checkpoints, has_general=read_general is not None),
        domains=measurements,
        general=read_general,
        unjudged=[name for i, name in enumerate(names) if i not in judged],
        construction=construction,
        decode=reader.decode,
    )


def check_files(candidate: Manifest, seed: Manifest) -> None:
    """Raise Incompatible unless a mix has its seed's tokenizer, chat template and other files.

    The reference and the served model read the same files, so no figure would show a change.
    """
    problems = tuple(
        Problem(
            pointer("files", name),
            f"has SHA-256 {candidate.files.get(name)}, the seed's is {seed.files.get(name)}",
        )
        for name in sorted({*candidate.files, *seed.files})
        if candidate.files.get(name) != seed.files.get(name)
    )
    if problems:
        raise Incompatible("the mix has other files than its seed", problems=problems)


def check_routers(candidate: Manifest, blobs: BlobStore) -> None:
    """Raise InvalidCheckpoint with each router that has a zero row for an expert with a domain.

    An expert with a zero row is chosen whenever all other logits are negative, and in a single
    block that is too little for a gate to see. A routed seed has a zero row on purpose; see
    `assembler.routing.router_init`.
    """
    a = candidate.architecture
    num_domains = a.num_experts - (not a.shared_expert)
    with_domain = [n for n in range(num_domains) if n not in a.disabled_experts]
    problems = []
    for name, entry in candidate.tensors.items():
        if is_router_rows(name):
            rows_ND = numpy_tensors.read(blobs, entry)
            problems += [
                Problem(pointer("tensors", name), f"row {number} is zero")
                for number in with_domain
                if not rows_ND[number].any()
            ]
    if problems:
        raise InvalidCheckpoint("a router does not know an expert", problems=tuple(problems))


def _read_reference(
    candidate: Manifest, prompts: Sequence[Tensor], policy: Policy, blobs: BlobStore
) -> tuple[list[list[Continuation]], list[dict[str, list[Reading]]]]:
    """Return by domain the greedy texts of the reference network, and its noise; both are cached.

    Texts continue after an end-of-text token: only numerics are compared here, and every token
    counts alike.
    """
    network = cache(lambda: Network.from_manifest(candidate, blobs, dtype=torch.float32))
    in_bfloat16 = cache(lambda: Network.from_manifest(candidate, blobs, dtype=torch.bfloat16))
    load = cache(lambda: network_runner.runner(network()))

    def read_again(continuations: Sequence[Continuation]) -> dict[str, list[Reading]]:
        readings = noise.variations(load(), continuations)
        if int8_modules(candidate.config):
            readings |= perturbation.readings(network(), continuations)
        if serving_dtype() == "bfloat16":
            readings |= perturbation.in_bfloat16(in_bfloat16(), continuations)
        return readings

    texts = reference_cache.continuations_by_domain(
        candidate.digest,
        [[tuple(prompt) for prompt in domain.tolist()] for domain in prompts],
        num_tokens=policy.completion_tokens,
        load=load,
    )
    noisy = [
        reference_cache.noisy_readings(
            reference_cache.noise_key("network", candidate.digest, domain), domain, read_again
        )
        for domain in texts
    ]
    return texts, noisy


def _on_general(
    seed: Manifest,
    texts: Sequence[Sequence[Continuation]],
    noisy: Sequence[dict[str, list[Reading]]],
    blobs: BlobStore,
) -> dict[str, Any]:
    """Return the mix's texts after general prefixes, its noise, and how the seed reads them."""
    if not texts:
        return {}
    return {
        "continuations": texts[0],
        "variations": noisy[-1],
        "seed": network_runner.of_manifest(seed, blobs).read(texts[0]),
    }


def _checked_windows(
    reader: TokenReader,
    documents: Sequence[Sequence[Document]],
    positions: Sequence[int],
    *,
    length: int,
    num_tokens: int,
) -> list[Tensor]:
    """Windows [n, length] of each domain, together at most about `num_tokens`, at least one.

    `positions` are those of the domains' experts in the mix.
    """
    count = max(1, num_tokens // length)
    windows = held_out_windows(reader, documents, length=length, count=count)
    problems = tuple(
        Problem(pointer("experts", i), f"its held-out documents do not fill {length} tokens")
        for i, own in zip(positions, windows, strict=True)
        if len(own) == 0
    )
    if problems:
        raise InvalidInput("too little held-out text for a gate", problems=problems)
    return windows
