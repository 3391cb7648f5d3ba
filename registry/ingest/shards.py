"""Find the files that hold the weights of a folder, as transformers finds them.

`model.safetensors` holds all of them, or the index names the shards. Other safetensors files may
lie beside: shards of an earlier save, an adapter, a copy under the names of another program.
"""

import re
from pathlib import Path, PurePosixPath

from registry import bounded_json
from registry.checkpoints.file_names import ADAPTER_TENSORS, TENSORS, TENSORS_INDEX
from registry.errors import InvalidInput

# The weights under the names of Mistral's own program; transformers does not read it.
CONSOLIDATED = "consolidated"
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
# The names of 100,000 tensors and their files.
MAX_ELEMENTS = 500_000


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder's checkpoint, sorted; empty if there are none.

    Raises InvalidInput if shards are missing, or nobody can tell which belong together.
    """
    if (folder / TENSORS).is_file():
        return [folder / TENSORS]
    if (folder / TENSORS_INDEX).is_file():
        return _named_by_index(folder)
    paths = [
        path
        for path in sorted(folder.glob("*.safetensors"))
        if path.is_file()
        and not path.name.startswith((".", CONSOLIDATED))
        and path.name != ADAPTER_TENSORS
    ]
    return _one_set(folder, paths) if any(SHARD.fullmatch(path.name) for path in paths) else paths


def names_in_index(path: Path) -> list[str]:
    """Return the names of the files that an index names, sorted. Raises InvalidInput."""
    try:
        index = bounded_json.parse(path.read_bytes(), max_elements=MAX_ELEMENTS)
    except InvalidInput as error:
        raise InvalidInput(f"{path} is refused: {error.detail}") from error
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise InvalidInput(f"{path} is refused: it has no weight_map of tensors and their files")
    names = sorted(set(map(str, shards.values())))
    for name in names:
        if name != PurePosixPath(name).name or not name.endswith(".safetensors"):
            raise InvalidInput(f"{path} is refused: {name!r} is no safetensors file beside it")
    return names


def _named_by_index(folder: Path) -> list[Path]:
    names = names_in_index(folder / TENSORS_INDEX)
    _check_complete(folder, names, because=f"as {TENSORS_INDEX} says")
    return [folder / name for name in names]


def _one_set(folder: Path, paths: list[Path]) -> list[Path]:
    """Return the shards of the only set whose names say that they belong together."""
    found = [match for path in paths if (match := SHARD.fullmatch(path.name))]
    sets = sorted({(match["stem"], match["count"]) for match in found})
    if len(sets) > 1:
        shown = " and ".join(f"{stem}-*-of-{count}" for stem, count in sets[:2])
        raise InvalidInput(
            f"{folder} has shards of several checkpoints ({shown}) and no {TENSORS_INDEX} that"
            " names one: leave only the shards of the one that you mean"
        )
    [(stem, count)] = sets
    names = [f"{stem}-{n:05d}-of-{count}.safetensors" for n in range(1, int(count) + 1)]
    _check_complete(folder, names, because="as their names say")
    return [folder / name for name in names]


def _check_complete(folder: Path, names: list[str], *, because: str) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InvalidInput(
            f"{folder} has {len(names) - len(missing)} of {len(names)} shards, {because}:"
            f" {missing[0]}{more} is missing; fetch the rest of the checkpoint"
        )
