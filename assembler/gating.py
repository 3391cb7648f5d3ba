"""Takes the measurements of a gate: perplexities, and the served candidate against its reference.

The server starts while the reference writes its texts, because starting takes it longest.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from assembler import evaluate, perplexities
from assembler.data import Reader, evenly
from assembler.network import Network
from assembler.perplexities import Contenders
from engine import readings, server
from engine.divergence import Continuation, Reading
from engine.gates import WINDOW_TOKENS, GateReport, Measurements, Policy, judge
from registry.blobs import BlobStore
from registry.documents import Document
from registry.errors import InvalidInput, Problem, pointer


def gate(
    contenders: Contenders,
    documents: Sequence[Sequence[Document]],
    *,
    policy: Policy,
    blobs: BlobStore,
    log_path: Path,
    on_progress: Callable[[str, int, int], None],
) -> GateReport:
    """Measure the candidate on the held-out documents of each expert, and judge it.

    `documents` are in the order of `contenders.experts`; the server writes to `log_path`. Raises
    InvalidInput when a domain holds too little text, Unavailable when the server fails.
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
        texts, reread, assembled = _reference(contenders, prompts, policy, blobs)
        running.wait_ready()
        served = [readings.read(running, own) for own in texts]
    measurements = [
        Measurements(
            domain=domain,
            perplexity=measured[i],
            continuations=texts[i],
            reread=reread[i],
            served=served[i],
            assembled=None if assembled is None else assembled[i],
        )
        for i, domain in enumerate(domains)
    ]
    return judge(
        policy, manifest_digest=candidate.digest, domains=measurements, decode=reader.decode
    )


def _reference(
    contenders: Contenders, prompts: Sequence[Tensor], policy: Policy, blobs: BlobStore
) -> tuple[list[list[Continuation]], list[list[Reading]], list[list[Reading]] | None]:
    """Greedy texts per domain, the reference's own second reading, and the unfinetuned mix's."""
    network = Network.from_manifest(contenders.candidate, blobs, dtype=torch.float32)
    texts = [
        evaluate.greedy_continuations(network, own, num_tokens=policy.completion_tokens)
        for own in prompts
    ]
    reread = [evaluate.teacher_forced(network, own) for own in texts]
    if contenders.finetuned is None:
        return texts, reread, None
    del network  # two networks need not be in memory at a time
    network = Network.from_manifest(contenders.assembled, blobs, dtype=torch.float32)
    return texts, reread, [evaluate.teacher_forced(network, own) for own in texts]


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
