"""vLLM's load format `nexusmix`: tensors come from the blob store, mapped, by their manifest.

The model folder holds the manifest and small files; no checkpoint file is ever put together.
"""

from pathlib import Path
from typing import Any, cast

from torch import nn
from vllm.config import ModelConfig
from vllm.model_executor.model_loader.base_loader import BaseModelLoader
from vllm.platforms import current_platform

from engine.compression import int8_units
from engine.vllm_plugin import model_folder, tensors
from registry import blobs

# vLLM's own attention, between the projections: of a checkpoint that is quantized it has scales for
# a quantized cache, which we do not use.
ATTENTION = ".self_attn.attn."


class ManifestLoader(BaseModelLoader):
    def download_model(self, model_config: ModelConfig) -> None:
        """Nothing to do: a remote store fetches a blob when it is first read."""

    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        """Raises ValueError when a parameter of the network got no tensor, InvalidCheckpoint when
        this processor would compute its int8 layers wrongly."""
        manifest = model_folder.read_manifest(Path(model_config.model))
        if current_platform.is_cpu():
            int8_units.check_processor(manifest)
        loaded = cast(Any, model).load_weights(tensors.load(blobs.store(), manifest))
        missing = {name for name, _ in model.named_parameters()} - loaded
        missing = {name for name in missing if ATTENTION not in name}
        if missing:
            raise ValueError(f"the manifest has no tensors for {sorted(missing)}")
