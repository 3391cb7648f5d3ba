"""Measure the gateway beside LiteLLM's proxy, in front of one engine that answers at once.

Each round asks the engine itself, the gateway and the proxy in turn, on one connection and on
sixteen. All have one process. What a request costs beyond the engine is the gateway's own time.
Then each holds a thousand streams that have had one event, while others go on asking.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil

from engine.launch.launcher import LocalLauncher
from registry.errors import Unavailable
from service.demo.bars import Bar
from service.runtime.supervisor import free_port
from tests.benchmarks.gateway import litellm_proxy, load
from tests.benchmarks.gateway.load import Load
from tests.benchmarks.harness import reports, web_process
from tests.benchmarks.harness.web_process import HOST

NAME = "gateway"
PACKAGES = ("nexusmix", "fastapi", "uvicorn", "httpx")
MODEL = "mix"
ENGINE, GATEWAY, PROXY = "engine", "gateway", "LiteLLM"
ONE, MANY = 1, 16
NUM_STREAMS, QUICK_STREAMS = 1000, 20
# Of one key; the proxy has none.
NO_LIMITS = {"max_completions_per_key": 2 * NUM_STREAMS, "max_requests_per_second": 1e6}
START_SECONDS = 180.0
STOP_SECONDS = 20.0
LEAST_RATIO, MOST_P50, MOST_P99, MOST_MEMORY = 10.0, 1.5, 15.0, 1 / 3


@dataclass(frozen=True, kw_only=True)
class Side:
    """A server that is measured: its address, a key, and the process whose tree it is."""

    address: str
    key: str
    pid: int

    def memory(self) -> int:
        """Return the bytes of its processes; pages that they share are divided among them."""
        process = psutil.Process(self.pid)
        members = [process, *process.children(recursive=True)]
        return sum(member.memory_full_info().pss for member in members)


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "requests a second and latency beside LiteLLM's proxy")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=6, help="of each load")
    chosen = reports.chosen(parser, argv)
    rounds, seconds = (1, 1) if chosen.quick else (chosen.rounds, chosen.seconds)
    with TemporaryDirectory(prefix="nexusmix-gateway-") as folder, _sides(Path(folder)) as sides:
        loads = _rounds(sides, Path(folder), rounds=rounds, seconds=seconds)
        memory = {name: side.memory() for name, side in sides.items() if name != ENGINE}
        count = QUICK_STREAMS if chosen.quick else NUM_STREAMS
        streams = {
            name: asyncio.run(_hold(side, Path(folder), count=count, seconds=seconds))
            for name, side in sides.items()
            if name != ENGINE
        }
    figures = {
        "rounds": rounds,
        "seconds": seconds,
        "LiteLLM": litellm_proxy.VERSION,
        "loads": {name: _figures(found) for name, found in loads.items()},
        "memory_bytes": memory,
        "idle_streams": {"count": count, **streams},
    }
    return reports.write(
        chosen.output,
        figures=figures,
        bars=[] if chosen.quick else _bars(loads, memory, streams),
        packages=PACKAGES,
    )


Loads = Mapping[str, Mapping[int, Sequence[Load]]]


def _rounds(sides: Mapping[str, Side], work: Path, *, rounds: int, seconds: int) -> Loads:
    found: dict[str, dict[int, list[Load]]] = {name: {ONE: [], MANY: []} for name in sides}
    for _ in range(rounds):
        for connections in (ONE, MANY):
            for name, side in sides.items():
                each = _load(side, work, connections=connections, seconds=seconds)
                found[name][connections].append(each)
                reports.say(f"{name}, {connections}: {each}")
    return found


def _load(side: Side, work: Path, *, connections: int, seconds: int) -> Load:
    return load.measure(
        side.address,
        key=side.key,
        model=MODEL,
        connections=connections,
        seconds=seconds,
        work=work,
    )


async def _hold(side: Side, work: Path, *, count: int, seconds: int) -> dict[str, Any]:
    """Hold idle streams while a connection asks; return how many began, and what both took."""
    before = side.memory()
    held = load.idle_streams(side.address, key=side.key, model=MODEL, count=count)
    async with held as begun:
        meanwhile = await asyncio.to_thread(_load, side, work, connections=ONE, seconds=seconds)
        bytes_each = (side.memory() - before) / count
    return {
        "begun": begun,
        "p99_of_others": round(meanwhile.p99, 2),
        "failures_of_others": meanwhile.failures,
        "bytes_each": round(bytes_each),
    }


def _figures(found: Mapping[int, Sequence[Load]]) -> dict[str, Any]:
    return {
        str(connections): {
            "per_second": reports.summary([each.per_second for each in runs], digits=1),
            "p50": reports.summary([each.p50 for each in runs], digits=2),
            "p99": reports.summary([each.p99 for each in runs], digits=2),
            "failures": sum(each.failures for each in runs),
        }
        for connections, runs in found.items()
    }


def _bars(
    loads: Loads, memory: Mapping[str, int], streams: Mapping[str, Mapping[str, Any]]
) -> list[Bar]:
    def p50(name: str) -> float:
        return median(each.p50 for each in loads[name][ONE])

    pairs = zip(loads[GATEWAY][MANY], loads[PROXY][MANY], strict=True)
    ratio = median(ours.per_second / theirs.per_second for ours, theirs in pairs)
    p99 = median(each.p99 for each in loads[GATEWAY][MANY])
    return [
        Bar("requests a second over LiteLLM's, 16 connections", ratio, ">=", LEAST_RATIO),
        Bar("added milliseconds, one connection, p50", p50(GATEWAY) - p50(ENGINE), "<=", MOST_P50),
        Bar("milliseconds, 16 connections, p99", p99, "<=", MOST_P99),
        Bar("memory over LiteLLM's", memory[GATEWAY] / memory[PROXY], "<=", MOST_MEMORY),
        Bar("idle streams held", streams[GATEWAY]["begun"], ">=", NUM_STREAMS),
    ]


@contextmanager
def _sides(work: Path) -> Iterator[dict[str, Side]]:
    """Run the engine, the gateway and the proxy."""
    with ExitStack() as stack:
        port = free_port(HOST, 0)
        command = [
            *(sys.executable, "-m", "uvicorn", "tests.benchmarks.gateway.fast_engine:app"),
            *(f"--host={HOST}", f"--port={port}", "--no-access-log", "--log-level=warning"),
        ]
        process = LocalLauncher().run(command, env=os.environ, log_path=work / "engine.log")
        stack.callback(process.terminate, STOP_SECONDS)
        engine = f"http://{HOST}:{port}"
        _await(engine, key="none")
        programs = litellm_proxy.environment()
        proxy_port = free_port(HOST, 0)
        proxy = stack.enter_context(
            litellm_proxy.running(programs, engine=engine, model=MODEL, port=proxy_port, work=work)
        )
        web = stack.enter_context(web_process.running(limits=NO_LIMITS))
        web_process.add_deployment(MODEL, address=engine)
        sides = {
            ENGINE: Side(address=engine, key="none", pid=process.pid),
            GATEWAY: Side(address=web.address, key=web.keys[0], pid=web.pid),
            PROXY: Side(
                address=f"http://{HOST}:{proxy_port}", key=litellm_proxy.KEY, pid=proxy.pid
            ),
        }
        for side in sides.values():
            _await(side.address, key=side.key)
        yield sides


def _await(address: str, *, key: str) -> None:
    """Wait until a server answers a chat. Raises Unavailable."""
    give_up_at = time.monotonic() + START_SECONDS
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    while time.monotonic() < give_up_at:
        try:
            answer = httpx.post(
                f"{address}/v1/chat/completions",
                content=load.body(MODEL),
                headers=headers,
                timeout=30,
            )
            if answer.is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise Unavailable(f"{address} does not answer a chat")
