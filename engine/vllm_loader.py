"""vLLM's load format `nexusmix`: tensors come from the blob store, mapped, by their manifest.

The model folder holds the manifest and small files; no checkpoint file is ever put together.
"""

from pathlib import Path
from typing import Any, cast

from torch import nn
from vllm.config import ModelConfig
from vllm.model_executor.model_loader.base_loader import BaseModelLoader

from engine import model_folder, tensors
from registry import blobs


class ManifestLoader(BaseModelLoader):
    def download_model(self, model_config: ModelConfig) -> None:
        """Nothing to do: a remote store fetches a blob when it is first read."""

    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        """Raises ValueError when a parameter of the network got no tensor."""
        manifest = model_folder.read_manifest(Path(model_config.model))
        loaded = cast(Any, model).load_weights(tensors.load(blobs.store(), manifest))
        missing = {name for name, _ in model.named_parameters()} - loaded
        if missing:
            raise ValueError(f"the manifest has no tensors for {sorted(missing)}")
