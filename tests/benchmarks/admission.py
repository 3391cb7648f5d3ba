"""Measure whether bad neighbors keep others waiting: health and chats, with them and without.

The neighbors are 200 uploads that have begun and send nothing more, 1,000 connections without a
request, and 50 readers of the events of a mix. Each round measures without them and with them, in
changing order, on one web process. The engine behind it answers at once, so that what is measured
is the web process.
"""

import asyncio
import hashlib
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from service.demo.bars import Bar
from tests.benchmarks.harness import reports, web_process
from tests.benchmarks.harness.web_process import HOST, WebProcess
from tests.service.conftest import serving
from tests.service.upstream import Upstream

NAME = "admission"
PACKAGES = ("nexusmix", "fastapi", "uvicorn", "httptools")
NUM_UPLOADS, NUM_IDLE, NUM_READERS = 200, 1000, 50
QUICK_UPLOADS, QUICK_IDLE, QUICK_READERS = 20, 20, 5
# One key may have fewer uploads at a time.
NUM_KEYS = 4
MOST_MORE_SECONDS = 0.1
MODEL = "mix"
WARM_UP = 5


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "latency with bad neighbors and without")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=20, help="of each kind in a round")
    chosen = reports.chosen(parser, argv)
    neighbors = (NUM_UPLOADS, NUM_IDLE, NUM_READERS)
    rounds, requests = chosen.rounds, chosen.requests
    if chosen.quick:
        neighbors, rounds, requests = (QUICK_UPLOADS, QUICK_IDLE, QUICK_READERS), 1, 5
    with web_process.running(num_keys=NUM_KEYS) as web, serving(Upstream().app) as engine:
        web_process.add_deployment(MODEL, address=engine)
        events = web_process.add_running_mix(MODEL)
        seconds = asyncio.run(_measure(web, events, neighbors, rounds=rounds, requests=requests))
    figures = {
        "uploads": neighbors[0],
        "idle": neighbors[1],
        "readers": neighbors[2],
        "rounds": rounds,
        "seconds": {kind: _figures(runs) for kind, runs in seconds.items()},
    }
    bars = [
        Bar(f"{kind}: {part} seconds more with neighbors", found[part]["more"], "<", limit)
        for kind, found in figures["seconds"].items()
        for part, limit in (("median", MOST_MORE_SECONDS), ("p95", MOST_MORE_SECONDS))
    ]
    return reports.write(
        chosen.output, figures=figures, bars=[] if chosen.quick else bars, packages=PACKAGES
    )


async def _measure(
    web: WebProcess,
    events: str,
    neighbors: tuple[int, int, int],
    *,
    rounds: int,
    requests: int,
) -> dict[str, dict[bool, list[float]]]:
    """Return the seconds of each request by kind, and by whether there were neighbors."""
    seconds: dict[str, dict[bool, list[float]]] = {
        kind: {False: [], True: []} for kind in ("health", "chat")
    }
    async with httpx.AsyncClient(base_url=web.address, timeout=60) as client:
        # The first requests load code and open connections.
        await _time_requests(client, web, requests)
        for number in range(rounds):
            for busy in (False, True) if number % 2 else (True, False):
                async with AsyncExitStack() as stack:
                    if busy:
                        await stack.enter_async_context(_present(web, events, *neighbors))
                    # Connecting is not what is measured.
                    await _time_requests(client, web, WARM_UP)
                    for kind, taken in (await _time_requests(client, web, requests)).items():
                        seconds[kind][busy] += taken
            reports.say(f"round {number + 1} of {rounds}")
    return seconds


async def _time_requests(
    client: httpx.AsyncClient, web: WebProcess, count: int
) -> dict[str, list[float]]:
    headers = {"Authorization": f"Bearer {web.keys[0]}"}
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    taken: dict[str, list[float]] = {"health": [], "chat": []}
    for _ in range(count):
        for kind in taken:
            began = time.perf_counter()
            if kind == "health":
                answer = await client.get("/health")
            else:
                answer = await client.post("/v1/chat/completions", json=chat, headers=headers)
            answer.raise_for_status()
            taken[kind].append(time.perf_counter() - began)
    return taken


@asynccontextmanager
async def _present(
    web: WebProcess, events: str, num_uploads: int, num_idle: int, num_readers: int
) -> AsyncIterator[None]:
    """Have the neighbors connected during the block."""
    async with AsyncExitStack() as stack:
        opened = [
            *(_upload(web, number) for number in range(num_uploads)),
            *(b"" for _ in range(num_idle)),
            *(_follow(web, events) for _ in range(num_readers)),
        ]
        for request in opened:
            stack.push_async_callback(_close, await _connect(web, request))
        yield


async def _connect(web: WebProcess, request: bytes) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection(HOST, int(web.address.rpartition(":")[2]))
    writer.write(request)
    await writer.drain()
    return writer


async def _close(writer: asyncio.StreamWriter) -> None:
    # What the server thinks of it does not matter.
    writer.transport.abort()


def _upload(web: WebProcess, number: int) -> bytes:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    key = web.keys[number % len(web.keys)]
    return (
        f"PUT /api/v1/blobs/{digest} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {key}\r\n"
        "Content-Length: 1000000\r\n\r\nhalf"
    ).encode()


def _follow(web: WebProcess, events: str) -> bytes:
    key = web.keys[0]
    return (
        f"GET {events} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {key}\r\n\r\n"
    ).encode()


def _figures(runs: dict[bool, list[float]]) -> dict[str, Any]:
    """Return median and 95th percentile without and with neighbors, and the difference."""
    found: dict[str, Any] = {"requests": len(runs[False])}
    for part, share in (("median", 0.5), ("p95", 0.95)):
        alone, busy = (
            sorted(runs[kind])[int(share * (len(runs[kind]) - 1))] for kind in (False, True)
        )
        found[part] = {
            "alone": round(alone, 4),
            "with": round(busy, 4),
            "more": round(busy - alone, 4),
        }
    return found


if __name__ == "__main__":
    sys.exit(main())
