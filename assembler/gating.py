"""Takes the measurements of a gate: perplexities, and the served candidate against its reference.

The server starts while the reference writes its texts, because starting takes it longest.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from assembler import continuations, evaluate, perplexities
from assembler.data import Reader, evenly
from assembler.network import Network
from assembler.perplexities import Contenders
from engine import server
from engine.divergence import noise
from engine.divergence.metrics import Continuation, Reading
from engine.divergence.server_runner import ServerRunner
from engine.divergence.torch_runner import TorchRunner
from engine.gates import WINDOW_TOKENS, GateReport, Measurements, Policy, judge
from registry import arrays
from registry.blobs import BlobStore
from registry.documents import Document
from registry.errors import Incompatible, InvalidCheckpoint, InvalidInput, Problem, pointer
from registry.manifests import Manifest


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
    as `check_files` and `check_routers` before anything is read; InvalidInput when a domain holds
    too little text, or when the policy asks for more than the noise floor allows, Unavailable when
    the server fails.
    """
    check_files(contenders.candidate, contenders.seed)
    check_routers(contenders.candidate, blobs)
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
        served = [ServerRunner.of(running).read(own) for own in texts]
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


def check_files(candidate: Manifest, seed: Manifest) -> None:
    """Raises Incompatible unless a mix has its seed's tokenizer, chat template and other files:
    reference and served model read both with the same ones, so that no figure would tell."""
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
    """Raises InvalidCheckpoint, naming each router that has a row of zeros: its expert is taken
    whenever all others are disliked, and in one block that is too little for a gate to see."""
    disabled = candidate.config.get("disabled_experts") or ()
    problems = []
    for name, entry in candidate.tensors.items():
        if name.endswith(".gate.weight"):
            problems += [
                Problem(pointer("tensors", name), f"row {number} is zero")
                for number, row in enumerate(arrays.read(blobs, entry))
                if number not in disabled and not row.any()
            ]
    if problems:
        raise InvalidCheckpoint("a router does not know an expert", problems=tuple(problems))


def _reference(
    contenders: Contenders, prompts: Sequence[Tensor], policy: Policy, blobs: BlobStore
) -> tuple[list[list[Continuation]], list[list[Reading]], list[list[Reading]] | None]:
    """Greedy texts per domain, the reference's own further readings, and the unfinetuned mix's.

    Texts go on behind an end of text: here only numerics are compared, for which every token counts
    alike.
    """
    load = cache(lambda: _runner(contenders.candidate, blobs))
    texts = [
        continuations.written(
            contenders.candidate.digest,
            [tuple(prompt) for prompt in own.tolist()],
            num_tokens=policy.completion_tokens,
            load=load,
        )
        for own in prompts
    ]
    reread = [noise.floor(own, noise.variations(load(), own)) for own in texts]
    if contenders.finetuned is None:
        return texts, reread, None
    load.cache_clear()  # two networks need not be in memory at a time
    assembled = _runner(contenders.assembled, blobs)
    return texts, reread, [assembled.read(own) for own in texts]


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
