"""Make folders atomically."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def whole_folder(folder: Path, *, may_exist: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder to fill; at the end it is renamed to `folder`.

    If the block raises or the process dies, `folder` does not exist. Two processes may make the
    same folder at once: with `may_exist` the first result is kept, otherwise the second process
    raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{folder.name}-{uuid4().hex}"
    unfinished.mkdir()
    try:
        yield unfinished
        try:
            unfinished.rename(folder)
        except OSError:
            if not (may_exist and folder.exists()):
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
