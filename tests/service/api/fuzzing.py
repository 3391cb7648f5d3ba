"""Runs schemathesis over the whole OpenAPI document of a service, with a key or without."""

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

PROGRAM = Path(sys.executable).with_name("schemathesis")
DOCUMENT = "/api/v1/openapi.json"
SEED = 31
CONFIG = Path(__file__).with_name("schemathesis.toml")


@dataclass(frozen=True)
class Outcome:
    """What a run found: requests sent, failures of checks by name, and the program's report.

    `answered` counts the answers without an error by operation, as `GET /api/v1/mixes`.
    """

    num_cases: int
    failures: dict[str, int]
    answered: dict[str, int]
    log: str


def run(
    address: str,
    *,
    key: str | None,
    seconds: float,
    seed: int = SEED,
    arguments: Sequence[str] = (),
) -> Outcome:
    """Send generated requests to a service until all phases have ended, or for about `seconds`.

    `arguments` go to `schemathesis run`. Raises CalledProcessError when it does not run to its end.
    """
    with TemporaryDirectory(prefix="nexusmix-fuzz-") as folder:
        report = Path(folder) / "report.ndjson"
        command = [
            *(str(PROGRAM), f"--config-file={CONFIG}", "--no-color", "run", address + DOCUMENT),
            *(f"--seed={seed}", f"--max-time={math.ceil(seconds)}", "--request-timeout=60"),
            *("--workers=1", "--continue-on-failure", "--warnings=off", "--no-shrink"),
            *("--suppress-health-check=all", f"--report-ndjson-path={report}"),
            *(() if key is None else (f"--header=Authorization: Bearer {key}",)),
            *arguments,
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode not in (0, 1) or not report.exists():
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return _outcome(report.read_text(), done.stdout)


def _outcome(report: str, log: str) -> Outcome:
    failures: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    num_cases = 0
    for line in report.splitlines():
        scenario = json.loads(line).get("ScenarioFinished")
        if scenario is None:
            continue
        recorder = scenario["recorder"]
        num_cases += len(recorder.get("cases", ()))
        for checks in recorder.get("checks", {}).values():
            failures.update(check["name"] for check in checks if check["status"] == "failure")
        for number, interaction in recorder.get("interactions", {}).items():
            case = recorder["cases"][number]["value"]
            if interaction.get("response", {}).get("status_code", 500) < 400:
                answered[f"{case['method']} {case['path']}"] += 1
    return Outcome(num_cases, dict(failures), dict(answered), log)
