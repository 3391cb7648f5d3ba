"""Texts of a reference are generated once and read from the cache afterwards."""

from collections.abc import Sequence
from itertools import chain

import pytest

from assembler.evaluation import reference_cache
from engine.divergence.metrics import Continuation, Reading, Tokens
from engine.divergence.runners import Runner
from engine.divergence.torch_runner import TorchRunner
from registry import cpu_features
from registry.settings import settings
from tests.engine.divergence.tables import END, as_network, table

PREFIXES: list[Tokens] = [(1,), (2, 3), (4, 1, 2)]


def load() -> Runner:
    return TorchRunner(as_network(table(6, ties=False)), stop_token_ids={END})


def never() -> Runner:
    raise AssertionError("the reference was loaded again")


def cached_texts(reference: str = "r", *, num_tokens: int = 8) -> list[Continuation]:
    return reference_cache.continuations(reference, PREFIXES, num_tokens=num_tokens, load=load)


def test_the_reference_is_loaded_only_once() -> None:
    first = cached_texts()
    assert reference_cache.continuations("r", PREFIXES, num_tokens=8, load=never) == first


def test_cached_texts_are_exact_and_margins_nearly() -> None:
    expected = load().write(PREFIXES, num_tokens=8)
    assert len({len(text.tokens) for text in expected}) > 1, "one should end early"
    for text, cached in zip(cached_texts(), expected, strict=True):
        assert (text.prefix, text.tokens) == (cached.prefix, cached.tokens)
        assert text.margins == pytest.approx(cached.margins, rel=1e-3)


def test_the_texts_of_several_domains_are_written_together() -> None:
    domains = [PREFIXES[:1], PREFIXES[1:]]
    written: list[int] = []

    class Counting(TorchRunner):
        def write(self, prefixes: Sequence[Tokens], *, num_tokens: int) -> list[Continuation]:
            written.append(len(prefixes))
            return super().write(prefixes, num_tokens=num_tokens)

    network = Counting(as_network(table(6, ties=False)), stop_token_ids={END})
    texts = reference_cache.continuations_by_domain(
        "r", domains, num_tokens=8, load=lambda: network
    )
    assert written == [len(PREFIXES)]
    assert [*chain.from_iterable(texts)] == cached_texts()
    # Each is cached on its own.
    assert reference_cache.continuations("r", domains[1], num_tokens=8, load=never) == texts[1]


@pytest.mark.parametrize("change", [{"reference": "other"}, {"num_tokens": 7}])
def test_another_reference_or_length_has_other_texts(change: dict[str, str | int]) -> None:
    cached_texts()
    cached_texts(**change)  # type: ignore[arg-type]  # one of two keywords, each with its own type
    folders = list((settings().cache_path / "continuations").glob("*/*"))
    assert len(folders) == 2


def test_a_token_takes_four_bytes_or_less() -> None:
    many: list[Tokens] = [(1 + i % 4, 1 + i // 4 % 4, 1 + i // 16) for i in range(64)]
    network = TorchRunner(as_network(table(6)))
    texts = reference_cache.continuations("r", many, num_tokens=20, load=lambda: network)
    stored = reference_cache.num_bytes(reference_cache.key_of("r", many, num_tokens=20))
    assert stored / sum(len(text.tokens) for text in texts) < 4


def test_noise_is_measured_once() -> None:
    texts = cached_texts()

    def make(texts: Sequence[Continuation]) -> dict[str, list[Reading]]:
        return {"in one pass": load().read(texts)}

    def fail(texts: Sequence[Continuation]) -> dict[str, list[Reading]]:
        raise AssertionError("the noise was measured again")

    first = reference_cache.noisy_readings("k", texts, make)
    assert reference_cache.noisy_readings("k", texts, fail) == first
    for reading, expected in zip(first["in one pass"], load().read(texts), strict=True):
        assert reading.predicted == expected.predicted
        assert reading.logprobs == pytest.approx(expected.logprobs)


def test_noise_is_cached_for_each_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = cached_texts()
    key = reference_cache.noise_key("network", "r", texts)
    assert reference_cache.noise_key("network", "r", texts) == key
    assert reference_cache.noise_key("engine", "r", texts) != key
    monkeypatch.setattr(cpu_features, "vector_instructions", lambda: ("another",))
    assert reference_cache.noise_key("network", "r", texts) != key


def test_a_reference_that_fails_leaves_nothing() -> None:
    with pytest.raises(AssertionError, match="loaded again"):
        reference_cache.continuations("r", PREFIXES, num_tokens=8, load=never)
    assert list((settings().cache_path / "continuations").glob("*/*")) == []
