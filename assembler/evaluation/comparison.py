"""Takes the measurements of the gate between any two models.

The reference's texts and its noise are found in the cache where they were made before; then a
candidate costs one forward pass. One network is in memory at a time.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import chain, islice

from assembler.evaluation import reference_cache
from assembler.evaluation.comparison_request import ComparisonRequest, DocumentsFile
from assembler.evaluation.comparison_sides import OpenedSide, open_subject
from engine.divergence import noise
from engine.divergence.metrics import Continuation, Reading, Tokens
from engine.divergence.server_runner import ServerRunner
from engine.gates import comparison_gate
from engine.gates.comparison_gate import Compared, DivergenceReport, ModelPolicy, Side
from registry import documents
from registry.blobs import BlobStore
from registry.documents import Document
from registry.errors import Incompatible, InvalidInput, Problem, pointer
from registry.manifests import json_digest
from registry.settings import settings

# Beginnings of prefixes by which two tokenizers are compared.
COMPARED_PREFIXES = 16

# By which two chat templates are compared.
CONVERSATIONS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "What is this?"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "A model."},
        {"role": "user", "content": "Of what?"},
    ],
)

OnProgress = Callable[[str], None]
Prompts = Mapping[str, list[Tokens]]


def gate(
    request: ComparisonRequest, *, blobs: BlobStore, on_progress: OnProgress
) -> DivergenceReport:
    """Compare and judge.

    Raises InvalidInput, before anything is written, for a wrong policy, subject or text, and before
    the candidate reads, where the policy asks for more than the noise floor allows; Incompatible
    where the two cannot be compared; Unavailable when a server fails.
    """
    policy = request.read_policy()
    on_progress("opening both")
    reference = open_subject(request.reference, blobs)
    candidate = open_subject(request.candidate, blobs)
    prompts = _prompts(reference, request.texts, policy)
    check_comparable(reference, candidate, prompts, policy)
    written, varied = _of_reference(
        reference, prompts, policy, engine=candidate.is_served, on_progress=on_progress
    )
    for domain, texts in written.items():
        comparison_gate.check_floor(policy, texts, varied[domain], domain=domain)
    on_progress(f"loading {candidate.name}")
    runner = candidate.load()
    compared = []
    for domain, texts in written.items():
        on_progress(f"{candidate.name} reads {domain}")
        compared.append(
            Compared(
                domain=domain,
                continuations=texts,
                varied=varied[domain],
                candidate=runner.read(texts),
            )
        )
    return comparison_gate.judge(
        policy,
        reference=Side(name=reference.name, digest=reference.key),
        candidate=Side(name=candidate.name, digest=candidate.key),
        domains=compared,
        decode=reference.words.decode,
    )


def _of_reference(
    reference: OpenedSide,
    prompts: Prompts,
    policy: ModelPolicy,
    *,
    engine: bool,
    on_progress: OnProgress,
) -> tuple[dict[str, list[Continuation]], dict[str, dict[str, list[Reading]]]]:
    """By domain its texts, and its own readings of them; with `engine` also those of the engine
    that serves."""
    # Loaded only if something is not known yet, and given up before the candidate is loaded.
    load = cache(reference.load)
    num_tokens = policy.completion_tokens
    written, varied = {}, {}
    for domain, prefixes in prompts.items():
        on_progress(f"{reference.name} writes {domain}")
        key = reference.key
        if reference.is_served:
            # Another model may answer at the same address by now: one text is written anew to tell.
            key = json_digest([key, load().write(prefixes[:1], num_tokens=num_tokens)[0].tokens])
        written[domain] = reference_cache.continuations(
            key, prefixes, num_tokens=num_tokens, load=load
        )
        on_progress(f"{reference.name} reads {domain} again")
        if reference.is_served:
            # Nothing tells on which hardware, or beside what other requests, it answers this time.
            varied[domain] = noise.variations(load(), written[domain])
        else:
            key = reference_cache.noise_key("network", reference.key, written[domain])
            varied[domain] = reference_cache.noisy_readings(
                key, written[domain], lambda own: noise.variations(load(), own)
            )
    load.cache_clear()
    if engine and not reference.is_served:
        on_progress(f"serving {reference.name}")
        served = _served(reference, written, on_progress)
        for domain in varied:
            varied[domain][noise.SERVED] = served[domain]
    return written, varied


def _served(
    reference: OpenedSide, written: Mapping[str, Sequence[Continuation]], on_progress: OnProgress
) -> dict[str, list[Reading]]:
    """What our engine says when it serves the reference; it is started where that is not known."""
    texts = list(chain.from_iterable(written.values()))

    def make(own: Sequence[Continuation]) -> dict[str, list[Reading]]:
        log_path = settings().home / "logs" / "gate" / f"{time.time_ns()}.log"
        with reference.serving(log_path) as running:
            running.wait_ready()
            on_progress(f"{reference.name} reads where it is served")
            return {noise.SERVED: ServerRunner.of(running).read(own)}

    key = reference_cache.noise_key("engine", reference.key, texts)
    readings = iter(reference_cache.noisy_readings(key, texts, make)[noise.SERVED])
    return {domain: list(islice(readings, len(own))) for domain, own in written.items()}


def _prompts(
    reference: OpenedSide, texts: Sequence[DocumentsFile], policy: ModelPolicy
) -> dict[str, list[Tokens]]:
    """Prefixes of held-out text, by domain. Raises InvalidInput where there are none."""
    prompts, problems = {}, []
    for domain, own in _by_domain(texts).items():
        prompts[domain] = reference.words.prefixes(
            own, length=policy.prefix_tokens, count=policy.prompts_per_domain
        )
        if not prompts[domain]:
            num_held_out = sum(document.split == "held-out" for document in own)
            detail = (
                f"its {num_held_out} held-out documents fill no prefix of {policy.prefix_tokens}"
                " tokens: bring more text, or lower prefix_tokens"
            )
            problems.append(Problem(pointer("texts", domain), detail))
    if problems:
        raise InvalidInput("too little held-out text to compare on", problems=tuple(problems))
    return prompts


def _by_domain(texts: Sequence[DocumentsFile]) -> dict[str, list[Document]]:
    domains: dict[str, list[Document]] = {}
    for own in texts:
        try:
            data = own.path.read_bytes()
        except OSError as error:
            raise InvalidInput(f"{own.path} cannot be read: {error.strerror}") from error
        for document in documents.parse([data]):
            domains.setdefault(document.domain or own.domain, []).append(document)
    if not domains:
        raise InvalidInput(f"{', '.join(str(own.path) for own in texts)}: no document in it")
    return domains


def check_comparable(
    reference: OpenedSide, candidate: OpenedSide, prompts: Prompts, policy: ModelPolicy
) -> None:
    """Raises Incompatible for other vocabularies, tokenizers or chat templates, InvalidInput where
    their lengths do not suffice."""
    _check_vocabularies(reference, candidate)
    sample = list(islice(chain.from_iterable(prompts.values()), COMPARED_PREFIXES))
    for text in map(reference.words.decode, sample):
        [own], [other] = reference.words.encode([text]), candidate.words.encode([text])
        if own != other:
            raise Incompatible(
                f"their tokenizers differ: {text[:40]!r} begins with tokens {own[:8]} for"
                f" {reference.name}, with {other[:8]} for {candidate.name}"
            )
    _check_chat(reference, candidate)
    # One more, which a server that reads must be able to write.
    needed = policy.prefix_tokens + policy.completion_tokens + 1
    problems = tuple(
        Problem(pointer("completion_tokens"), f"{one.name} takes {one.max_tokens} of {needed}")
        for one in (reference, candidate)
        if one.max_tokens is not None and one.max_tokens < needed
    )
    if problems:
        raise InvalidInput("prefix and completion are too long together", problems=problems)


def _check_chat(reference: OpenedSide, candidate: OpenedSide) -> None:
    """Compared are plain texts: what a changed chat template does would be in no figure."""
    for conversation in CONVERSATIONS:
        own, other = (one.words.chat(conversation) for one in (reference, candidate))
        if own is None or own == other:
            continue
        found = "answers none" if other is None else f"reads {candidate.words.decode(other)!r}"
        raise Incompatible(
            f"their chat templates differ: of one conversation {reference.name} reads"
            f" {reference.words.decode(own)!r}, {candidate.name} {found}"
        )


def _check_vocabularies(reference: OpenedSide, candidate: OpenedSide) -> None:
    for one, other in ((reference, candidate), (candidate, reference)):
        runner = one.load() if one.is_served else None
        if isinstance(runner, ServerRunner) and other.vocab_size is not None:
            runner.check(vocab_size=other.vocab_size)
    sizes = {one.vocab_size for one in (reference, candidate)} - {None}
    if len(sizes) > 1:
        raise Incompatible(
            f"another vocabulary: {reference.name} has {reference.vocab_size} tokens,"
            f" {candidate.name} {candidate.vocab_size}"
        )
