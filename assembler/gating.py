"""Takes the measurements of a gate: perplexities, and the served candidate against its reference.

The server starts while the reference writes its texts, because starting takes it longest.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from assembler import continuations, evaluate, perplexities, perturbation
from assembler.data import Reader, evenly
from assembler.network import Network
from assembler.perplexities import Contenders
from engine import server
from engine.divergence import noise
from engine.divergence.metrics import Continuation, Reading
from engine.divergence.server_runner import ServerRunner
from engine.divergence.torch_runner import TorchRunner
from engine.gates import WINDOW_TOKENS, GateReport, Measurements, Sides, judge
from engine.policies import Policy, Stage
from registry.blobs import BlobStore
from registry.documents import Document
from registry.errors import InvalidInput, Problem, pointer
from registry.manifests import Manifest
from registry.quantisation import int8_modules


def gate(
    contenders: Contenders,
    documents: Sequence[Sequence[Document]],
    *,
    documents_digests: Sequence[str],
    policy: Policy,
    blobs: BlobStore,
    log_path: Path,
    on_progress: Callable[[str, int, int], None],
) -> GateReport:
    """Measure the candidate on the held-out documents of each expert, and judge it.

    `documents` and their digests are in the order of `contenders.experts`; the server writes to
    `log_path`. Raises InvalidInput when a domain holds too little text, or when the policy asks for
    more than the noise floor allows, Unavailable when the server fails.
    """
    reader = Reader.of(contenders.seed, blobs)
    domains = list(contenders.experts)
    windows = _held_out(
        reader, documents, length=WINDOW_TOKENS, num_tokens=policy.tokens_per_domain
    )
    prompts = _held_out(
        reader,
        documents,
        length=policy.prefix_tokens,
        num_tokens=policy.prompts_per_domain * policy.prefix_tokens,
    )
    measured = perplexities.measure(contenders, windows, blobs=blobs, on_progress=on_progress)
    candidate = contenders.candidate
    with server.serving(candidate, blobs=blobs, log_path=log_path) as running:
        texts, reread = _reference(candidate, prompts, policy, blobs)
        others = _others(contenders, dict(zip(domains, texts, strict=True)), blobs)
        running.wait_ready()
        served = [ServerRunner.of(running).read(own) for own in texts]
    measurements = [
        Measurements(
            domain=domain,
            documents=documents_digests[i],
            perplexity=measured[i],
            continuations=texts[i],
            reread=reread[i],
            readings={"served": served[i], **others[domain]},
        )
        for i, domain in enumerate(domains)
    ]
    return judge(
        policy,
        manifest_digest=candidate.digest,
        stages=_sides(contenders),
        domains=measurements,
        decode=reader.decode,
    )


def _reference(
    candidate: Manifest, prompts: Sequence[Tensor], policy: Policy, blobs: BlobStore
) -> tuple[list[list[Continuation]], list[list[Reading]]]:
    """Greedy texts per domain, and the reference's own further readings.

    Texts go on behind an end of text: here only numerics are compared, for which every token counts
    alike.
    """
    network = cache(lambda: Network.from_manifest(candidate, blobs, dtype=torch.float32))
    load = cache(lambda: evaluate.runner(network()))
    texts = [
        continuations.written(
            candidate.digest,
            [tuple(prompt) for prompt in own.tolist()],
            num_tokens=policy.completion_tokens,
            load=load,
        )
        for own in prompts
    ]
    reread = []
    for own in texts:
        varied = noise.variations(load(), own)
        if int8_modules(candidate.config):
            varied |= perturbation.readings(network(), own)
        reread.append(noise.floor(own, varied))
    return texts, reread


def _others(
    contenders: Contenders, texts: Mapping[str, Sequence[Continuation]], blobs: BlobStore
) -> dict[str, dict[Stage, list[Reading]]]:
    """By domain what other mixes make of the candidate's texts: itself before its finetune and
    before its compression, and the version before in the domains that it has. One network is in
    memory at a time."""
    readers: dict[Stage, tuple[Manifest, Collection[str]]] = {}
    if contenders.finetuned is not None:
        readers["finetuned"] = (contenders.assembled, texts.keys())
    if contenders.compressed is not None:
        readers["compressed"] = (contenders.trained, texts.keys())
    if contenders.base is not None:
        readers["base"] = (contenders.base, contenders.base_domains & texts.keys())
    readings: dict[str, dict[Stage, list[Reading]]] = {domain: {} for domain in texts}
    for stage, (manifest, domains) in readers.items():
        runner = _runner(manifest, blobs)
        for domain in domains:
            readings[domain][stage] = runner.read(texts[domain])
        del runner  # before the next is loaded
    return readings


def _sides(contenders: Contenders) -> dict[Stage, Sides]:
    parents = {"seed": contenders.seed.digest}
    parents |= {f"expert {name}": own.digest for name, own in contenders.experts.items()}
    assembled, candidate = contenders.assembled.digest, contenders.candidate.digest
    sides: dict[Stage, Sides] = {"assembled": Sides(candidate=assembled, against=parents)}
    if contenders.finetuned is not None:
        before = {"the mix before its finetune": assembled}
        sides["finetuned"] = Sides(candidate=candidate, against=before)
    if contenders.compressed is not None:
        before = {"the mix before its compression": contenders.trained.digest}
        sides["compressed"] = Sides(candidate=candidate, against=before)
    sides["candidate"] = Sides(candidate=candidate, against=parents)
    # One checkpoint in two implementations.
    sides["served"] = Sides(candidate=candidate, against={"the reference network": candidate})
    if contenders.base is not None:
        base = {"the version before": contenders.base.digest}
        sides["base"] = Sides(candidate=candidate, against=base)
    return sides


def _runner(manifest: Manifest, blobs: BlobStore) -> TorchRunner:
    return evaluate.runner(Network.from_manifest(manifest, blobs, dtype=torch.float32))


def _held_out(
    reader: Reader, documents: Sequence[Sequence[Document]], *, length: int, num_tokens: int
) -> list[Tensor]:
    """Windows [n, length] of each domain, together at most about `num_tokens`, at least one."""
    windows = [
        evenly(
            reader.windows(own, split="held-out", length=length),
            count=max(1, num_tokens // length),
        )
        for own in documents
    ]
    problems = tuple(
        Problem(pointer("experts", i), f"its held-out documents do not fill {length} tokens")
        for i, own in enumerate(windows)
        if len(own) == 0
    )
    if problems:
        raise InvalidInput("too little held-out text for a gate", problems=problems)
    return windows
