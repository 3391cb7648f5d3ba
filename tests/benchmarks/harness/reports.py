"""Options and results of all benchmarks. A result names machine and packages, but no paths."""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from registry import cpu_features
from service.demo.bars import Bar

RESULTS = Path(__file__).parents[1] / "results"
# Results of quick runs. They are not figures of the project, so git ignores this folder.
QUICK_RESULTS = Path(__file__).parents[3] / "build" / "results"


def options(name: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks."""
    parser = argparse.ArgumentParser(prog=f"nexusmix bench {name}", description=description)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument(
        "--output",
        type=Path,
        help=f"the result's file; default: {name}.json in tests/benchmarks/results/, of quick runs"
        " in build/results/",
    )
    parser.set_defaults(benchmark=name)
    return parser


def chosen(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line of a benchmark. A quick run does not replace a committed result."""
    found = parser.parse_args(argv)
    name = vars(found).pop("benchmark")
    if found.output is None:
        found.output = (QUICK_RESULTS if found.quick else RESULTS) / f"{name}.json"
    return found


def write(
    path: Path, *, figures: dict[str, Any], bars: Sequence[Bar], packages: Iterable[str]
) -> int:
    """Write a result and print which bars it holds; return 1, the exit status, if one is not."""
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: version(name) for name in packages},
        **figures,
        "bars": [str(bar) for bar in bars],
        "held": all(bar.held for bar in bars),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    for bar in bars:
        say(f"{'kept' if bar.held else 'NOT KEPT'}: {bar}")
    return 0 if result["held"] else 1


def machine() -> dict[str, Any]:
    """Return what figures depend on: processor, cores, memory, kernel and GPUs."""
    return {
        "processor": cpu_features.name(),
        "vector_instructions": list(cpu_features.vector_instructions()),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "gpus": _gpus(),
    }


def _gpus() -> list[str]:
    """Return name and driver of each NVIDIA GPU."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


def summary(values: Sequence[float], *, digits: int = 3) -> dict[str, Any]:
    """Return all runs in order and their median, which one disturbed run hardly changes."""
    return {
        "median": round(statistics.median(values), digits),
        "runs": [round(value, digits) for value in values],
    }


def say(message: str) -> None:
    """Print a message to stderr."""
    sys.stderr.write(f"{message}\n")
