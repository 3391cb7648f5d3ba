"""Make folders atomically, for their owner only."""

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
    raises OSError. Only the owner can enter the folder, whatever the umask is.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{folder.name}-{uuid4().hex}"
    unfinished.mkdir(mode=0o700)
    try:
        yield unfinished
        try:
            unfinished.rename(folder)
        except OSError:
            if not (may_exist and folder.exists()):
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
