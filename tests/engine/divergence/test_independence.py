"""The library runs for strangers: without the rest of nexusmix, and with NumPy or torch only.

Covers: runners.
"""

import subprocess
import sys
from pathlib import Path

import engine.divergence

LIBRARY = Path(engine.divergence.__file__).parent
# What a process must not import: our other packages, and what an installation of ours brings along.
OURS = (
    "registry",
    "assembler",
    "service",
    "migrations",
    "tests",
    *(
        f"engine.{path.stem}"
        for path in LIBRARY.parent.iterdir()
        if path.stem not in ("divergence", "__init__", "__pycache__")
    ),
)
BROUGHT = (
    *("pydantic", "sqlalchemy", "httpx", "fastapi", "structlog", "threadpoolctl"),
    *("transformers", "vllm", "ray", "psutil", "rich", "typer"),
)

REFUSE = """\
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        for refused in sys.argv[1].split(","):
            if name == refused or name.startswith(refused + "."):
                raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, Refuse())
"""

ON_IDS = """\
from engine.divergence import noise
from engine.divergence.aggregates import summarize
from engine.divergence.metrics import Continuation, Reading
from engine.divergence.runners import Runner

text = Continuation(prefix=(1, 2), tokens=(3, 4))
readings = [Reading(predicted=(3, 5), logprobs=(-0.1, -2.0))]
print(summarize([text], readings).equal_share)
print(noise.floor([text], {noise.IN_ONE_PASS: readings}).fdt.mean)
"""

WITH_TORCH = """\
import torch
from engine.divergence.aggregates import summarize
from engine.divergence.torch_runner import TorchRunner

def logits(tokens_BT):
    return torch.nn.functional.one_hot((tokens_BT + 1) % 7, 7).float()

texts = TorchRunner(logits).write([(1, 2)], num_tokens=3)
print(texts[0].tokens)
print(summarize(texts, TorchRunner(logits).read(texts)).equal_share)
"""


def run(code: str, refused: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", REFUSE + code, ",".join(refused)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_metrics_of_token_ids_need_numpy_only() -> None:
    done = run(ON_IDS, (*OURS, *BROUGHT, "torch"))
    assert done.stdout == "0.5\n1.0\n", done.stderr


def test_torch_models_are_compared_with_torch_only() -> None:
    done = run(WITH_TORCH, (*OURS, *BROUGHT))
    assert done.stdout == "(3, 4, 5)\n1.0\n", done.stderr


def test_no_module_imports_the_rest_of_nexusmix() -> None:
    modules = [f"engine.divergence.{path.stem}" for path in LIBRARY.glob("[a-z]*.py")]
    assert len(modules) >= 8
    done = run("\n".join(f"import {module}" for module in modules), OURS)
    assert done.returncode == 0, done.stderr


def test_what_is_refused_cannot_be_imported() -> None:
    done = run("import registry.errors", OURS)
    assert "registry is not installed here" in done.stderr
