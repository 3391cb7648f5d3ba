"""Results of parts of a benchmark: one that was interrupted goes on where it stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from assembler.content_cache import made_once
from registry.checkpoints.manifests import json_digest
from registry.settings import settings

RESULT = "result.json"


def once(benchmark: str, key: Any, make: Callable[[], Any]) -> Any:
    """`make()`, a JSON value, or what it was when it was made before; `key` tells, as JSON, all
    that it depends on."""

    def write(folder: Path) -> None:
        (folder / RESULT).write_text(json.dumps(make()))

    name = json_digest(key)
    folder = settings().cache_path / "benchmarks" / benchmark / name[:2] / name[2:]
    return json.loads((made_once(folder, write) / RESULT).read_text())
