"""Measure how a candidate model differs from a reference model, and judge it by a policy.

The reference's texts and its noise floor are cached. Once they are known, a candidate costs one
forward pass over the texts. One network is in memory at a time.
"""

import time
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain, islice

from assembler.evaluation import reference_cache
from assembler.evaluation.comparison_request import ComparisonRequest, DocumentsFile
from assembler.evaluation.comparison_sides import OpenedSide, open_subject
from assembler.evaluation.runner_errors import as_ours
from assembler.progress import OnMessage
from engine.divergence import noise
from engine.divergence.metrics import Continuation, Reading, Tokens
from engine.divergence.server_runner import ServerRunner
from engine.gates import comparison_gate
from engine.gates.comparison_gate import DivergenceReport, DomainReadings, ModelPolicy, Side
from registry.blobs.blobs import BlobStore
from registry.catalog import documents
from registry.catalog.documents import Document
from registry.checkpoints.manifests import json_digest
from registry.errors import Incompatible, InvalidInput, Problem, pointer
from registry.settings import settings

# Number of prefixes on which two tokenizers are compared.
COMPARED_PREFIXES = 16

# Conversations on which two chat templates are compared.
CONVERSATIONS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "What is this?"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "A model."},
        {"role": "user", "content": "Of what?"},
    ],
)

Prompts = Mapping[str, list[Tokens]]


@as_ours()
def gate(
    request: ComparisonRequest, *, blobs: BlobStore, on_progress: OnMessage
) -> DivergenceReport:
    """Compare two models and judge the candidate.

    Raises InvalidInput for a wrong policy, model or text, before the reference writes; and for a
    threshold beyond the noise floor, before the candidate reads. Raises Incompatible where the two
    cannot be compared, and EngineFailed when a server fails.
    """
    policy = request.read_policy()
    on_progress("opening both models")
    reference = open_subject(request.reference, blobs)
    candidate = open_subject(request.candidate, blobs)
    prompts = _prompts(reference, request.texts, policy)
    check_comparable(reference, candidate, prompts, policy)
    continuations, noisy = _read_reference(
        reference, prompts, policy, engine=candidate.is_served, on_progress=on_progress
    )
    for domain, texts in continuations.items():
        comparison_gate.check_floor(policy, texts, noisy[domain], domain=domain)
    on_progress(f"loading {candidate.name}")
    runner = candidate.load()
    compared = []
    for domain, texts in continuations.items():
        on_progress(f"{candidate.name} reads {domain}")
        compared.append(
            DomainReadings(
                domain=domain,
                continuations=texts,
                variations=noisy[domain],
                candidate=runner.read(texts),
            )
        )
    return comparison_gate.judge(
        policy,
        reference=Side(name=reference.name, digest=reference.key),
        candidate=Side(name=candidate.name, digest=candidate.key),
        domains=compared,
        decode=reference.vocabulary.decode,
    )


def _read_reference(
    reference: OpenedSide,
    prompts: Prompts,
    policy: ModelPolicy,
    *,
    engine: bool,
    on_progress: OnMessage,
) -> tuple[dict[str, list[Continuation]], dict[str, dict[str, list[Reading]]]]:
    """Return, by domain, the reference's texts and its noise: further readings of the same texts.

    With `engine` the noise includes the readings of the engine that serves the reference.
    """
    # Loaded only if something is not cached, and released before the candidate is loaded.
    load = cache(reference.load)
    num_tokens = policy.completion_tokens
    continuations, noisy = {}, {}
    for domain, prefixes in prompts.items():
        on_progress(f"{reference.name} writes {domain}")
        key = reference.key
        if reference.is_served:
            # Another model may answer at the same address by now: one new text makes the key.
            key = json_digest([key, load().write(prefixes[:1], num_tokens=num_tokens)[0].tokens])
        continuations[domain] = reference_cache.continuations(
            key, prefixes, num_tokens=num_tokens, load=load
        )
        on_progress(f"{reference.name} reads {domain} again")
        if reference.is_served:
            # Its hardware, and the load beside us, may differ from last time: never cached.
            noisy[domain] = noise.variations(load(), continuations[domain])
        else:
            key = reference_cache.noise_key("network", reference.key, continuations[domain])
            noisy[domain] = reference_cache.noisy_readings(
                key, continuations[domain], lambda texts: noise.variations(load(), texts)
            )
    load.cache_clear()
    if engine and not reference.is_served:
        on_progress(f"serving {reference.name}")
        served = _read_served(reference, continuations, on_progress)
        for domain in noisy:
            noisy[domain][noise.SERVED] = served[domain]
    return continuations, noisy


def _read_served(
    reference: OpenedSide,
    continuations: Mapping[str, Sequence[Continuation]],
    on_progress: OnMessage,
) -> dict[str, list[Reading]]:
    """Return our engine's readings of the reference's texts; it starts only if they are unknown."""
    all_texts = list(chain.from_iterable(continuations.values()))

    def make(texts: Sequence[Continuation]) -> dict[str, list[Reading]]:
        log_path = settings().home / "logs" / "gate" / f"{time.time_ns()}.log"
        with reference.serving(log_path) as running:
            running.wait_ready()
            on_progress(f"{reference.name} reads where it is served")
            return {noise.SERVED: running.runner().read(texts)}

    key = reference_cache.noise_key("engine", reference.key, all_texts)
    readings = iter(reference_cache.noisy_readings(key, all_texts, make)[noise.SERVED])
    return {domain: list(islice(readings, len(texts))) for domain, texts in continuations.items()}


def _prompts(
    reference: OpenedSide, texts: Sequence[DocumentsFile], policy: ModelPolicy
) -> dict[str, list[Tokens]]:
    """Return prefixes of held-out text by domain. Raises InvalidInput for a domain without any."""
    prompts, problems = {}, []
    for domain, domain_documents in _by_domain(texts).items():
        prompts[domain] = reference.vocabulary.prefixes(
            domain_documents, length=policy.prefix_tokens, count=policy.prompts_per_domain
        )
        if not prompts[domain]:
            num_held_out = sum(document.split == "held-out" for document in domain_documents)
            detail = (
                f"its {num_held_out} held-out documents fill no prefix of {policy.prefix_tokens}"
                " tokens: add more text, or lower prefix_tokens"
            )
            problems.append(Problem(pointer("texts", domain), detail))
    if problems:
        raise InvalidInput("too little held-out text to compare on", problems=tuple(problems))
    return prompts


def _by_domain(texts: Sequence[DocumentsFile]) -> dict[str, list[Document]]:
    domains: dict[str, list[Document]] = {}
    for file in texts:
        try:
            data = file.path.read_bytes()
        except OSError as error:
            raise InvalidInput(f"{file.path} cannot be read: {error.strerror}") from error
        for document in documents.parse([data]):
            domains.setdefault(document.domain or file.domain, []).append(document)
    if not domains:
        raise InvalidInput(f"{', '.join(str(file.path) for file in texts)}: no document in it")
    return domains


@as_ours()
def check_comparable(
    reference: OpenedSide, candidate: OpenedSide, prompts: Prompts, policy: ModelPolicy
) -> None:
    """Raise Incompatible if vocabularies, tokenizers or chat templates differ, InvalidInput if a
    model's longest text is too short for the policy."""
    _check_vocabularies(reference, candidate)
    sample = list(islice(chain.from_iterable(prompts.values()), COMPARED_PREFIXES))
    for text in map(reference.vocabulary.decode, sample):
        [expected], [actual] = (
            reference.vocabulary.encode([text]),
            candidate.vocabulary.encode([text]),
        )
        if actual != expected:
            raise Incompatible(
                f"their tokenizers differ: {text[:40]!r} begins with tokens {expected[:8]} for"
                f" {reference.name}, with {actual[:8]} for {candidate.name}"
            )
    _check_chat(reference, candidate)
    # A server must have room to write one token after the text that it reads.
    needed = policy.prefix_tokens + policy.completion_tokens + 1
    problems = tuple(
        Problem(pointer("completion_tokens"), f"{side.name} takes {side.max_tokens} of {needed}")
        for side in (reference, candidate)
        if side.max_tokens is not None and side.max_tokens < needed
    )
    if problems:
        raise InvalidInput("prefix and completion are too long together", problems=problems)


def _check_chat(reference: OpenedSide, candidate: OpenedSide) -> None:
    """Raise Incompatible if the chat templates differ: the gate reads plain text, so its figures
    would not show it."""
    for conversation in CONVERSATIONS:
        expected, actual = (side.vocabulary.chat(conversation) for side in (reference, candidate))
        if expected is None or actual == expected:
            continue
        found = "refuses it" if actual is None else f"reads {candidate.vocabulary.decode(actual)!r}"
        raise Incompatible(
            f"their chat templates differ: for one conversation {reference.name} reads"
            f" {reference.vocabulary.decode(expected)!r}, {candidate.name} {found}"
        )


def _check_vocabularies(reference: OpenedSide, candidate: OpenedSide) -> None:
    for side, other in ((reference, candidate), (candidate, reference)):
        runner = side.load() if side.is_served else None
        if isinstance(runner, ServerRunner) and other.vocab_size is not None:
            runner.check(vocab_size=other.vocab_size)
    sizes = {side.vocab_size for side in (reference, candidate)} - {None}
    if len(sizes) > 1:
        raise Incompatible(
            f"the vocabularies differ: {reference.name} has {reference.vocab_size} tokens,"
            f" {candidate.name} {candidate.vocab_size}"
        )
