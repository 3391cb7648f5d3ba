"""The rows of one request: what its experts weighed, one row for each token, sent once each.

The row of a token tells of the step that wrote it, which read the token before.
"""

import numpy as np
from numpy.typing import NDArray

from engine.vllm_plugin.attribution.asked import Asked

Rows = NDArray[np.float32]


class RequestRows:
    """Collects the rows of a prompt, which may be read in several steps, until a token is written.

    A request that gives way to others reads its tokens again later. They count once.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._num_read = 0
        self._prompt: list[Rows] = []
        self._has_written = False

    def after_step(self, rows: Rows, *, position: int, has_written: bool) -> Rows | None:
        """Return the rows to send after a step; None before the first token is written.

        `rows` [T, ...] are those of the tokens that the step read, from `position` on. The first
        answer begins with the prompt: its rows if they were asked for, otherwise one row, their
        sum. The last row is always that of the written token.
        """
        last = len(rows) - 1 if has_written else len(rows)
        if not self._has_written:
            unread = rows[max(self._num_read - position, 0) : last]
            self._prompt.append(unread if self.asked.prompt else unread.sum(0, keepdims=True))
        self._num_read = max(self._num_read, position + len(rows))
        if not has_written:
            return None
        if self._has_written:
            # A view would keep the rows of the whole batch, and send them.
            return np.ascontiguousarray(rows[last:])
        self._has_written = True
        prompt = np.concatenate(self._prompt)
        self._prompt = []
        if not self.asked.prompt:
            prompt = prompt.sum(0, keepdims=True)
        return np.concatenate([prompt, rows[last:]], dtype=np.float32)
