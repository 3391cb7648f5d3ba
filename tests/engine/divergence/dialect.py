"""A small real server with the API that comparisons use, for behavior that vLLM never shows.

Its model is a table (`tables.table`), and its tokenizer reads numbers as ids. `without` names
response fields that it leaves out.
"""

import math
from collections.abc import Iterator, Set
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import dumps, loads
from threading import Thread
from typing import Any

from engine.divergence.metrics import Tokens
from tests.engine.divergence.tables import VOCABULARY, Table, free_run

MODEL = "table"


@contextmanager
def serving(
    table: Table, *, without: Set[str] = frozenset(), vocab_size: int = VOCABULARY
) -> Iterator[str]:
    """Run the server for the length of the block and yield its address,
    `http://127.0.0.1:PORT/v1`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, {"data": [{"id": MODEL, "created": 1, "max_model_len": 64}]})

        def do_POST(self) -> None:
            body = loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path != "/v1/completions":
                return self._answer(404, {"error": {"message": "it does not chat"}})
            prompts = [
                [int(word) for word in prompt.split()] if isinstance(prompt, str) else prompt
                for prompt in body["prompt"]
            ]
            if any(token >= vocab_size for prompt in prompts for token in prompt):
                return self._answer(400, {"error": {"message": "out of vocabulary"}})
            choices = [
                {"index": index} | _choice(table, tuple(prompt), body["max_tokens"])
                for index, prompt in enumerate(prompts)
            ]
            for choice in choices:
                for field in without:
                    del choice[field]
            # Out of order, as the API allows.
            return self._answer(200, {"choices": choices[::-1]})

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            data = dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _choice(table: Table, prompt: Tokens, max_tokens: int) -> dict[str, Any]:
    """Return a completion with every field that a comparison reads."""
    completion = free_run(table, prompt, max_tokens)
    text = prompt + completion
    return {
        "text": " ".join(map(str, text)),
        "token_ids": list(completion),
        "prompt_token_ids": list(prompt),
        "logprobs": {
            "top_logprobs": [
                {f"token_id:{token}": logprob for token, logprob in _top(table, text[:end])[:2]}
                for end in range(len(prompt), len(text))
            ]
        },
        "prompt_logprobs": [
            None,
            *(_prompt_logprobs(table, prompt, end) for end in range(1, len(prompt))),
        ],
    }


def _prompt_logprobs(table: Table, prompt: Tokens, end: int) -> dict[str, dict[str, float]]:
    """Return the likeliest token and the token of the text at one position.

    A server may report any of several equally likely tokens; this one reports the last.
    """
    top = _top(table, prompt[:end])
    best = max(token for token, logprob in top if logprob == top[0][1])
    return {str(token): {"logprob": dict(top)[token]} for token in (best, prompt[end])}


def _top(table: Table, context: Tokens) -> list[tuple[int, float]]:
    """Return all tokens and their log-probabilities, the likeliest first."""
    row = table(context).tolist()
    total = math.log(sum(math.exp(logit) for logit in row))
    return sorted(((t, logit - total) for t, logit in enumerate(row)), key=lambda x: -x[1])
