"""Makes a folder whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def whole_folder(folder: Path, *, may_exist: bool = False) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes `folder` at the end, by one rename.

    After an error, or when the process dies, nothing stands under the final name. Two processes may
    make the same folder at once: with `may_exist` the first one's is kept, otherwise the second
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
