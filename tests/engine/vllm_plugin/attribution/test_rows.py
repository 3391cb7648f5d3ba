"""Each row is sent once, with the token that it belongs to."""

import numpy as np

from engine.vllm_plugin.attribution.asked import Asked
from engine.vllm_plugin.attribution.rows import RequestRows, Rows

PROMPT = Asked(routing=True, prompt=True)


def read(*positions: int) -> Rows:
    """Return rows that say at which position each token was read."""
    return np.array([[position] for position in positions], np.float32)


def after(
    request: RequestRows, rows: Rows, *, position: int, has_written: bool
) -> list[float] | None:
    sent = request.after_step(rows, position=position, has_written=has_written)
    return None if sent is None else sent[:, 0].tolist()


def test_the_first_answer_begins_with_the_sum_of_the_prompt() -> None:
    request = RequestRows(Asked())
    assert after(request, read(0, 1, 2, 3), position=0, has_written=True) == [3, 3]
    assert after(request, read(4), position=4, has_written=True) == [4]


def test_a_prompt_that_is_read_in_parts_is_sent_once() -> None:
    request = RequestRows(PROMPT)
    assert after(request, read(0, 1), position=0, has_written=False) is None
    assert after(request, read(2, 3), position=2, has_written=False) is None
    assert after(request, read(4, 5), position=4, has_written=True) == [0, 1, 2, 3, 4, 5]


def test_tokens_that_came_from_the_cache_have_no_rows() -> None:
    request = RequestRows(Asked())
    assert after(request, read(32, 33, 34), position=32, has_written=True) == [65, 34]


def test_a_prompt_of_one_token_has_no_rows() -> None:
    assert after(RequestRows(PROMPT), read(0), position=0, has_written=True) == [0]
    assert after(RequestRows(Asked()), read(7), position=0, has_written=True) == [0, 7]


def test_what_is_read_again_counts_once() -> None:
    """The request gave way while its prompt was read, and again after its first token."""
    request = RequestRows(PROMPT)
    assert after(request, read(0, 1), position=0, has_written=False) is None
    assert after(request, read(0, 1, 2), position=0, has_written=False) is None
    assert after(request, read(3), position=3, has_written=True) == [0, 1, 2, 3]
    assert after(request, read(0, 1, 2, 3), position=0, has_written=False) is None
    assert after(request, read(4), position=4, has_written=True) == [4]


def test_weights_of_blocks_are_kept_as_they_are() -> None:
    request = RequestRows(Asked(routing=True, blocks=True))
    rows = np.ones((3, 2, 4), np.float32)
    sent = request.after_step(rows, position=0, has_written=True)
    assert sent is not None
    assert sent.shape == (2, 2, 4)
    assert sent[0].tolist() == np.full((2, 4), 2).tolist()
