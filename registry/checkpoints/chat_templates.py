"""Find out whether a checkpoint can chat, and whether a mix of it could.

A mix has the files of its seed, so the template of an expert is lost where the seed has none.
"""

import json

from registry.blobs.blobs import BlobStore, get_bytes
from registry.checkpoints.file_names import CHAT_TEMPLATE, TOKENIZER_CONFIG
from registry.checkpoints.manifests import Manifest
from registry.errors import NotFound

LOST = "has a chat template and its seed has none: mixes have the seed's files and refuse to chat"


def has_chat_template(manifest: Manifest, blobs: BlobStore) -> bool:
    """Return whether a checkpoint has a chat template, in a file of its own or of its tokenizer."""
    files = manifest.files | manifest.notes.files
    if CHAT_TEMPLATE in files:
        return True
    digest = files.get(TOKENIZER_CONFIG)
    if digest is None:
        return False
    try:
        config = json.loads(get_bytes(blobs, digest))
    except (NotFound, ValueError):
        # It was not sent yet, or is refused for another reason.
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))


def loses_template(manifest: Manifest, seed: Manifest, blobs: BlobStore) -> bool:
    """Return whether a mix cannot chat although this expert can."""
    return has_chat_template(manifest, blobs) and not has_chat_template(seed, blobs)
