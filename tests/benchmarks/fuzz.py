"""Send generated requests and read generated files until the time is over; no fault may show.

Requests are made by schemathesis from the OpenAPI document, in turns with a key and without, each
turn with another seed. Files are headers, manifests, recipes, policies and documents with wrong
parts; see `tests.structured_cases`. Both begin with the same seeds, so that a run can be repeated.
"""

import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx

from service.demo.bars import Bar
from tests import structured_cases
from tests.benchmarks.harness import reports, web_process
from tests.benchmarks.harness.web_process import WebProcess
from tests.service.api import fuzzing
from tests.structured_cases import KINDS, MAX_BYTES_OF_NOTHING, MAX_BYTES_PER_BYTE, MAX_RATIO

NAME = "fuzz"
PACKAGES = ("nexusmix", "schemathesis", "hypothesis", "fastapi", "uvicorn")
# Examples of each operation in each phase of a turn.
EXAMPLES, QUICK_EXAMPLES = 50, 1
TURN_SECONDS = 300.0
# Entries of a long text; the other one has twice as many.
COUNT = 5000
SERVER_ERROR = re.compile(r'nexusmix_http_requests_total\{.*status="(5\d\d)"\} (\S+)')
# The faults that stop a run when they show. A fuzz run must not raise the rate limit.
LIMITS = {"max_requests_per_second": 1e6}


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "generated requests and files")
    parser.add_argument("--minutes", type=float, default=30.0, help="of requests")
    parser.add_argument("--cases", type=int, default=100_000, help="of files, of all kinds")
    chosen = reports.chosen(parser, argv)
    minutes, cases = (0.5, 100) if chosen.quick else (chosen.minutes, chosen.cases)
    files = {name: _files(name, cases=cases // len(KINDS)) for name in KINDS}
    requests = _requests(minutes, examples=QUICK_EXAMPLES if chosen.quick else EXAMPLES)
    figures = {"minutes": minutes, "cases": cases, "requests": requests, "files": files}
    bars = [
        Bar("failures of checks", sum(requests["failures"].values()), "<", 1),
        Bar("answers with a status of 500 or above", sum(requests["5xx"].values()), "<", 1),
        *(
            Bar(f"{name}: time of twice the length, as a ratio", kind["ratio"], "<", MAX_RATIO)
            for name, kind in files.items()
        ),
        *(
            Bar(f"{name}: bytes needed for a byte", kind["bytes"], "<", MAX_BYTES_PER_BYTE)
            for name, kind in files.items()
        ),
    ]
    return reports.write(chosen.output, figures=figures, bars=bars, packages=PACKAGES)


def _files(name: str, *, cases: int) -> dict[str, Any]:
    """Read the cases of a kind, and measure two long texts."""
    kind = KINDS[name]
    began = time.perf_counter()
    read, refused = structured_cases.run(name, cases=cases)
    seconds = time.perf_counter() - began
    short, long = kind.of_length(COUNT), kind.of_length(2 * COUNT)
    ratio = structured_cases.ratio(kind, long, short)
    needed = max(0, structured_cases.peak_bytes(kind, long) - MAX_BYTES_OF_NOTHING) / len(long)
    found = {
        "read": read,
        "refused": refused,
        "seconds": round(seconds, 1),
        "ratio": round(ratio, 2),
        "bytes": round(needed, 1),
    }
    reports.say(f"{name}: {found}")
    return found


def _requests(minutes: float, *, examples: int) -> dict[str, Any]:
    """Send requests for some minutes, in turns with a key and without."""
    failures: Counter[str] = Counter()
    num_cases = {"with a key": 0, "without": 0}
    with web_process.running(limits=LIMITS) as web:
        deadline = time.monotonic() + 60 * minutes
        turn = 0
        while (left := deadline - time.monotonic()) > 0:
            kind = "without" if turn % 2 else "with a key"
            outcome = fuzzing.run(
                web.address,
                key=None if turn % 2 else web.keys[0],
                seconds=max(1.0, min(left, TURN_SECONDS)),
                seed=fuzzing.SEED + turn,
                arguments=(f"--max-examples={examples}",),
            )
            failures.update(outcome.failures)
            num_cases[kind] += outcome.num_cases
            turn += 1
            reports.say(f"turn {turn}, {kind}: {outcome.num_cases} requests")
            if outcome.failures:
                reports.say(outcome.log)
        return {
            "turns": turn,
            "requests": num_cases,
            "failures": dict(failures),
            "5xx": _server_errors(web),
        }


def _server_errors(web: WebProcess) -> dict[str, float]:
    """Return how often the web process itself has counted each status of 500 and above."""
    headers = {"Authorization": f"Bearer {web.keys[0]}"}
    text = httpx.get(f"{web.address}/metrics", headers=headers).text
    counted: Counter[str] = Counter()
    for status, count in SERVER_ERROR.findall(text):
        counted[status] += int(float(count))
    return dict(counted)


if __name__ == "__main__":
    sys.exit(main())
