"""Write a checkpoint as a folder that stock vLLM and transformers load without our package."""

import json
import shutil
from pathlib import Path

from assembler.stock import layout, model_card, shards, tensors
from assembler.stock.model_card import Origins
from registry.blobs.blobs import BlobStore, get_bytes
from registry.checkpoints.exports import OnBytes, new_folder
from registry.checkpoints.file_names import CONFIG, MODEL_CARD, TENSORS_INDEX, TOKENIZER_CONFIG
from registry.checkpoints.manifests import Manifest

# What transformers calls a tokenizer that is all in `tokenizer.json`.
TOKENIZER_CLASS = "PreTrainedTokenizerFast"


class StockExport:
    """The folder of one checkpoint, before it is written.

    Raises InvalidInput if no stock layout holds the checkpoint exactly.
    """

    def __init__(
        self,
        manifest: Manifest,
        blobs: BlobStore,
        origins: Origins,
        *,
        max_shard_bytes: int = shards.MAX_SHARD_BYTES,
    ) -> None:
        layout.check(manifest, name=origins.ref)
        self._blobs = blobs
        self._files = shards.files(tensors.rewritten(manifest), max_bytes=max_shard_bytes)
        self._texts = {
            CONFIG: json.dumps(layout.config(manifest), indent=2).encode(),
            MODEL_CARD: model_card.render(manifest, origins).encode(),
        }
        if manifest.architecture.num_experts:
            self._texts |= _tokenizer_config(manifest, blobs)
        if len(self._files) > 1:
            self._texts[TENSORS_INDEX] = json.dumps(shards.index(self._files), indent=2).encode()
        # Tokenizer, chat template, generation config, license texts.
        self._copied = {n: d for n, d in manifest.files.items() if n not in self._texts}

    @property
    def num_bytes(self) -> int:
        """Size of all files in bytes."""
        computed = sum(file.size for file in self._files.values()) + self._num_text_bytes
        return computed + sum(self._blobs.size(digest) or 0 for digest in self._copied.values())

    @property
    def _num_text_bytes(self) -> int:
        return sum(len(text) for text in self._texts.values())

    def write(self, folder: Path, *, on_bytes: OnBytes) -> None:
        """Write the new folder; all bytes are on the disk when this returns.

        Raises Conflict if `folder` exists, OutOfSpace, NotFound for a lost blob, and
        InvalidCheckpoint for a corrupt sparse tensor.
        """
        with new_folder(folder, num_bytes=self.num_bytes) as incoming:
            for name, text in self._texts.items():
                (incoming / name).write_bytes(text)
            on_bytes(self._num_text_bytes)
            for name, digest in self._copied.items():
                shutil.copyfile(self._blobs.local_path(digest), incoming / name)
                on_bytes((incoming / name).stat().st_size)
            for name, file in self._files.items():
                file.write(incoming / name, self._blobs, on_bytes=on_bytes)


def _tokenizer_config(manifest: Manifest, blobs: BlobStore) -> dict[str, bytes]:
    """Return a tokenizer config by file name, if the one of the mix names no class.

    transformers then takes the class of the model, and Qwen's splits texts in its own way.
    """
    digest = manifest.files.get(TOKENIZER_CONFIG)
    content = {} if digest is None else json.loads(get_bytes(blobs, digest))
    if content.get("tokenizer_class"):
        return {}
    named = content | {"tokenizer_class": TOKENIZER_CLASS}
    return {TOKENIZER_CONFIG: json.dumps(named, indent=2).encode()}
