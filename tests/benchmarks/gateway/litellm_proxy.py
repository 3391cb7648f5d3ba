"""Install and run LiteLLM's proxy in an environment of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assembler.content_cache import made_once
from engine.launch.launcher import LocalLauncher, LocalProcess
from registry.errors import Unavailable
from registry.settings import settings

VERSION = "1.80.0"
KEY = "sk-benchmark"
STOP_SECONDS = 20.0
# It would fetch a list of prices otherwise, and send statistics.
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_LOG": "ERROR",
}


def environment() -> Path:
    """Return the folder of programs of the environment, which is created if it is missing.

    Raises Unavailable if the packages cannot be installed.
    """
    folder = settings().cache_path / "benchmarks" / f"litellm-{VERSION}"

    def make(workspace: Path) -> None:
        _uv("venv", "--allow-existing", "--python", sys.executable, str(workspace))
        python = str(workspace / "bin" / "python")
        _uv("pip", "install", "--python", python, f"litellm[proxy]=={VERSION}")

    return made_once(folder, make) / "bin"


@contextmanager
def running(
    programs: Path, *, engine: str, model: str, port: int, work: Path
) -> Iterator[LocalProcess]:
    """Run one process of the proxy in front of an engine until the block ends."""
    config = {
        "model_list": [
            {
                "model_name": model,
                "litellm_params": {
                    "model": f"openai/{model}",
                    "api_base": f"{engine}/v1",
                    "api_key": "none",
                },
            }
        ],
        "general_settings": {"master_key": KEY},
    }
    path = work / "litellm.json"
    # Every JSON file is a YAML file.
    path.write_text(json.dumps(config))
    # The scripts of a folder that was renamed name an interpreter that is gone.
    start = "from litellm import run_server; run_server()"
    command = [
        *(str(programs / "python"), "-c", start),
        *("--config", str(path), "--host", "127.0.0.1", "--port", str(port)),
        *("--num_workers", "1"),
    ]
    process = LocalLauncher().run(command, env=os.environ | QUIET, log_path=work / "litellm.log")
    try:
        yield process
    finally:
        process.terminate(STOP_SECONDS)


def _uv(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uv", "--quiet", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        raise Unavailable(f"cannot install LiteLLM: {done.stderr.strip()[-1000:]}")
