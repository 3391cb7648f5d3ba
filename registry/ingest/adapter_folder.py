"""Read the folder of an adapter, as peft saves it, on an owner's disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.checkpoints.file_names import ADAPTER_CONFIG, ADAPTER_TENSORS
from registry.checkpoints.safetensors_header import parse_header, read_raw_header
from registry.errors import InvalidInput
from registry.imports.lora_config import LoraConfig
from registry.ingest.checkpoint_folder import DOCUMENTS, small_files
from registry.ingest.folder_contents import read_config
from registry.ingest.shards import weight_files
from registry.ingest.sources import Source

PICKLED = "adapter_model.bin"
# peft writes a description of the training; it says nothing that the seed's files say.
NOT_SENT = {ADAPTER_CONFIG, "README.md", DOCUMENTS}


@dataclass(frozen=True, kw_only=True)
class AdapterFolder:
    """A folder that was read: the announcement of its adapter, and bytes by digest."""

    announcement: dict[str, Any]
    sources: dict[str, Source]

    @classmethod
    def read(cls, folder: Path) -> "AdapterFolder":
        """Read and hash an adapter.

        Raises InvalidInput if the folder is not complete, and InvalidCheckpoint for a config or
        header that is refused.
        """
        config = read_config(folder, name=ADAPTER_CONFIG)
        LoraConfig.read(config)
        path = folder / ADAPTER_TENSORS
        if not path.is_file():
            pickled = (folder / PICKLED).exists()
            instead = (
                f"{PICKLED} is a pickle, which can run code: save the adapter again with a present"
                " version of peft"
                if pickled
                else "save the adapter with `save_pretrained(FOLDER)` of peft"
            )
            raise InvalidInput(f"{folder} has no {ADAPTER_TENSORS}: {instead}")
        header, weights = read_raw_header(path), Source.whole(path)
        parse_header(header, file_size=weights.num_bytes, file=path.name)
        sources = {weights.digest(): weights}
        announcement: dict[str, Any] = {
            "config": config,
            "weights": {"file": path.name, "size": weights.num_bytes, "header": header},
            "digest": next(iter(sources)),
            "files": {},
        }
        for other in small_files(folder):
            if other.name not in NOT_SENT:
                source = Source.whole(other)
                digest = announcement["files"][other.name] = source.digest()
                sources[digest] = source
        return cls(announcement=announcement, sources=sources)


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder holds an adapter and no model."""
    return (folder / ADAPTER_CONFIG).is_file() and not weight_files(folder)
