"""Load on an HTTP server: `wrk` asks, and idle streams are held open."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from registry.errors import Unavailable

SCRIPT = """
wrk.method = "POST"
wrk.body = '{body}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
done = function(summary, latency, requests)
  local bad = summary.errors.status + summary.errors.read + summary.errors.timeout
  io.write(string.format("FIGURES %d %d %d %f %f\\n", summary.requests, summary.duration, bad,
    latency:percentile(50), latency:percentile(99)))
end
"""
PROMPT = "What is a sonnet?"
FIGURES = re.compile(r"FIGURES (\d+) (\d+) (\d+) ([\d.]+) ([\d.]+)")
MICROSECONDS = 1e6


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a load measured: requests a second, milliseconds of an answer, failed requests."""

    per_second: float
    p50: float
    p99: float
    failures: int


def body(model: str, *, stream: bool = False) -> str:
    """Return the body of a chat request."""
    messages = [{"role": "user", "content": PROMPT}]
    return json.dumps({"model": model, "messages": messages, "stream": stream})


def measure(
    address: str, *, key: str, model: str, connections: int, seconds: int, work: Path
) -> Load:
    """Ask for chats one after the other on each connection. Raises Unavailable without `wrk`."""
    program = shutil.which("wrk")
    if program is None:
        raise Unavailable("the load comes from wrk, which is not installed: apt-get install wrk")
    script = work / "chat.lua"
    script.write_text(SCRIPT.format(body=body(model), key=key))
    command = [
        *(program, "--threads=1", f"--connections={connections}", f"--duration={seconds}s"),
        *("--timeout=30s", f"--script={script}", f"{address}/v1/chat/completions"),
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = FIGURES.search(output)
    assert found is not None, output
    requests, duration, failures, p50, p99 = map(float, found.groups())
    return Load(
        per_second=requests / (duration / MICROSECONDS),
        p50=p50 / 1000,
        p99=p99 / 1000,
        failures=int(failures),
    )


@asynccontextmanager
async def idle_streams(address: str, *, key: str, model: str, count: int) -> AsyncIterator[int]:
    """Hold streams that have had one event; yield how many there are."""
    host, _, port = address.removeprefix("http://").partition(":")
    content = body(model, stream=True).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    ).encode()
    writers: list[asyncio.StreamWriter] = []
    begun = 0
    try:
        for _ in range(count):
            reader, writer = await asyncio.open_connection(host, int(port))
            writers.append(writer)
            writer.write(head + content)
            status = await asyncio.wait_for(reader.readline(), 60)
            if b" 200 " in status:
                await asyncio.wait_for(reader.readuntil(b"data: "), 60)
                begun += 1
        yield begun
    finally:
        for writer in writers:
            writer.close()
