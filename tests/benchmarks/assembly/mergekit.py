"""Install and run mergekit-moe in an environment of its own, with our build of torch."""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from assembler.content_cache import made_once
from registry.errors import Unavailable
from registry.settings import settings

VERSION = "0.1.5"
PACKAGES = ("mergekit", "torch", "transformers")


def environment() -> Path:
    """Return the interpreter of the environment, which is created if it is missing.

    Raises Unavailable if the packages cannot be installed.
    """
    torch = version("torch")
    folder = settings().cache_path / "benchmarks" / f"mergekit-{VERSION}-torch-{torch}"

    def make(workspace: Path) -> None:
        _uv("venv", "--allow-existing", "--python", sys.executable, str(workspace))
        requirements = (f"mergekit=={VERSION}", f"torch=={torch}")
        _uv("pip", "install", "--python", str(workspace / "bin" / "python"), *requirements)

    return made_once(folder, make) / "bin" / "python"


def versions(python: Path) -> dict[str, str]:
    code = f"from importlib.metadata import version; print(*map(version, {PACKAGES}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return dict(zip(PACKAGES, done.stdout.split(), strict=True))


def command(python: Path, folders: Sequence[Path], *, work: Path) -> list[str]:
    """Return the command that makes a Mixtral in `work / "merged"`.

    It takes attention from the seed and FFNs from the experts. Random gates are the cheapest.
    """
    seed, *experts = map(str, folders)
    config = {
        "base_model": seed,
        "gate_mode": "random",
        "architecture": "mixtral",
        "dtype": "bfloat16",
        "experts_per_token": 2,
        "experts": [{"source_model": expert} for expert in experts],
    }
    # Every JSON file is a YAML file.
    path = work / "mergekit.yaml"
    path.write_text(json.dumps(config))
    module = [str(python), "-m", "mergekit.scripts.moe"]
    return [*module, "--random-seed", "0", "--quiet", str(path), str(work / "merged")]


def _uv(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "uv", *arguments, "--quiet"], check=False)
    if done.returncode:
        raise Unavailable(f"the environment of mergekit {VERSION} could not be made, see above")
