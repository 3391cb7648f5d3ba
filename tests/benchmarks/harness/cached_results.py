"""Cache results of parts of a benchmark, so that an interrupted one continues where it stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from assembler.content_cache import made_once
from registry.checkpoints.manifests import json_digest
from registry.settings import settings

RESULT = "result.json"


def once(benchmark: str, key: Any, make: Callable[[], Any]) -> Any:
    """Return the JSON value `make()`, from the cache if it was made before.

    `key` is a JSON value with everything that the result depends on.
    """

    def write(folder: Path) -> None:
        (folder / RESULT).write_text(json.dumps(make()))

    name = json_digest(key)
    folder = settings().cache_path / "benchmarks" / benchmark / name[:2] / name[2:]
    return json.loads((made_once(folder, write) / RESULT).read_text())
