"""A small HTTP server with vLLM's command line, for tests of the code around a vLLM server.

The served model name selects its behavior: `broken...` exits at once, `busy...` always reports a
running request.
"""

import argparse
import json
import sys
from http.server import BaseHTTPRequestHandler
from socketserver import UnixStreamServer


class Handler(BaseHTTPRequestHandler):
    model: str

    context: int | None

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            card = {"id": self.model, "max_model_len": self.context}
            self._answer(json.dumps({"data": [card]}).encode())
            return
        num_running = float(self.model.startswith("busy"))
        self._answer(f'vllm:num_requests_running{{engine="0"}} {num_running}\n'.encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._answer(json.dumps({"model": body["model"], "choices": []}).encode())

    def log_message(self, *_: object) -> None:
        """Log nothing: a client on a Unix socket has no address."""

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--uds")
    parser.add_argument("--max-model-len", default="auto")
    parser.add_argument("--served-model-name", nargs="+")
    arguments, _ = parser.parse_known_args()
    model = arguments.served_model_name[0]
    if model.startswith("broken"):
        sys.exit("this model cannot be served")
    context = arguments.max_model_len
    Handler.model, Handler.context = model, int(context) if context.isdecimal() else None
    UnixStreamServer(arguments.uds, Handler).serve_forever()


if __name__ == "__main__":
    main()
