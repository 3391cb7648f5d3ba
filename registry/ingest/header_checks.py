"""Check a source of an expert by its headers, whatever it is."""

from pathlib import Path

from registry.checkpoints.file_names import ADAPTER_CONFIG, ADAPTER_TENSORS
from registry.checkpoints.safetensors_header import read_header
from registry.imports import gguf_checkpoints, gguf_header, lora_adapters
from registry.imports.lora_config import LoraConfig
from registry.ingest import checkpoint_folder, gguf_file
from registry.ingest.adapter_folder import is_adapter
from registry.ingest.fitting import Seed
from registry.ingest.folder_contents import read_config


def check(path: Path, seed: Seed) -> None:
    """Check a checkpoint, an adapter or a GGUF file against the seed of a family; read no weight.

    Raises InvalidInput, InvalidCheckpoint and Incompatible, with every problem, as its registration
    does.
    """
    if path.suffix == gguf_file.SUFFIX:
        header = gguf_header.read(path)
        gguf_checkpoints.plan(header, seed.manifest)
        gguf_checkpoints.check_tokens(header, seed.read_tokenizer())
    elif path.is_dir() and is_adapter(path):
        config = LoraConfig.read(read_config(path, name=ADAPTER_CONFIG))
        lora_adapters.plan(config, read_header(path / ADAPTER_TENSORS), seed.manifest)
    else:
        checkpoint_folder.check_headers(path, seed=seed)
