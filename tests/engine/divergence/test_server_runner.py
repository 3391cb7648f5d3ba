"""A served model is compared like a network; unsuitable servers are refused before a comparison.

Covers: errors.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from engine.divergence.errors import Incomparable, ServerUnavailable
from engine.divergence.metrics import Continuation, Tokens
from engine.divergence.server_runner import PROMPTS_PER_REQUEST, ServerRunner
from engine.divergence.torch_runner import TorchRunner
from tests.engine.divergence import dialect
from tests.engine.divergence.tables import END, VOCABULARY, as_network, table

PREFIXES: list[Tokens] = [(1, 2), (3,), (4, 4, 1)]
# Without ties, because a server may report any of several equal tokens.
REFERENCE, CANDIDATE = table(1, ties=False), table(1, strays=0.2, ties=False)


@pytest.fixture(scope="module")
def served() -> Iterator[ServerRunner]:
    with dialect.serving(CANDIDATE) as address:
        yield ServerRunner(address, dialect.MODEL)


def test_a_server_writes_what_its_network_writes(served: ServerRunner) -> None:
    network = TorchRunner(as_network(CANDIDATE), stop_token_ids={END})
    expected = network.write(PREFIXES, num_tokens=8)
    texts = served.write(PREFIXES, num_tokens=8)
    assert [c.tokens for c in texts] == [c.tokens for c in expected]
    for text, expected_text in zip(texts, expected, strict=True):
        assert text.margins == pytest.approx(expected_text.margins, abs=1e-6)


def test_a_server_reads_what_its_network_reads(served: ServerRunner) -> None:
    texts = TorchRunner(as_network(REFERENCE), stop_token_ids={END}).write(PREFIXES, num_tokens=8)
    expected = TorchRunner(as_network(CANDIDATE)).read(texts)
    for one, other in zip(served.read(texts), expected, strict=True):
        assert one.predicted == other.predicted
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_of_two_equal_reported_tokens_the_lower_is_predicted() -> None:
    flat = np.zeros(VOCABULARY)
    with dialect.serving(lambda context: flat) as address:
        [reading] = ServerRunner(address, dialect.MODEL).read([Continuation((1,), (2, 3))])
    assert reading.predicted == (2, 3)


def test_many_prompts_keep_their_order(served: ServerRunner) -> None:
    many: list[Tokens] = [(1 + i % 4, 1 + i % 3) for i in range(PROMPTS_PER_REQUEST + 2)]
    assert [c.prefix for c in served.write(many, num_tokens=1)] == many


def test_a_good_server_of_the_right_vocabulary_passes(served: ServerRunner) -> None:
    served.check(vocab_size=VOCABULARY)
    assert served.card() == {"id": dialect.MODEL, "max_model_len": 64}


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("prompt_logprobs", "no log-probabilities of a prompt's tokens"),
        ("token_ids", "no ids of the tokens it writes"),
        ("logprobs", "no log-probabilities of the tokens it writes"),
    ],
)
def test_a_missing_response_field_is_reported(field: str, reason: str) -> None:
    with (
        dialect.serving(CANDIDATE, without={field}) as address,
        pytest.raises(Incomparable, match=reason),
    ):
        ServerRunner(address, dialect.MODEL).check()


@pytest.mark.parametrize(("size", "how"), [(VOCABULARY - 1, "larger"), (VOCABULARY + 1, "smaller")])
def test_another_vocabulary_is_refused(served: ServerRunner, size: int, how: str) -> None:
    with pytest.raises(Incomparable, match=f"{how} vocabulary than {size}"):
        served.check(vocab_size=size)


def test_an_unknown_model_is_refused_with_the_available_names(served: ServerRunner) -> None:
    with pytest.raises(Incomparable, match=r"no model 'mine'; there are \['table'\]"):
        ServerRunner(served.address, "mine").card()


def test_an_unreachable_server_is_unavailable() -> None:
    with pytest.raises(ServerUnavailable, match="does not answer"):
        ServerRunner("http://127.0.0.1:9/v1", "table").check()
