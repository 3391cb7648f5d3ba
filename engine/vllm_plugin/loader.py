"""vLLM's load format `nexusmix`: read tensors from the blob store by their manifest, memory-mapped.

The model folder holds only the manifest and small files. No checkpoint file is ever written.
"""

from pathlib import Path
from typing import Any, cast

from torch import nn
from vllm.config import ModelConfig
from vllm.model_executor.model_loader.base_loader import BaseModelLoader
from vllm.platforms import current_platform

from engine.compression import int8_units
from engine.vllm_plugin import model_folder, tensors
from registry.blobs import blob_stores
from registry.checkpoints import byte_checks

# Parameters of vLLM's attention layer itself, between the projections. For a quantized checkpoint
# these are scales of a quantized key-value cache, which we do not use.
ATTENTION = ".self_attn.attn."


class ManifestLoader(BaseModelLoader):
    """Load the weights of a model folder that holds a manifest."""

    def download_model(self, model_config: ModelConfig) -> None:
        """Do nothing: a remote store downloads a blob when it is first read."""

    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        """Load all tensors of the manifest into `model`.

        Raises ValueError when a parameter of the network has no tensor in the manifest, and
        InvalidCheckpoint when stored bytes have another digest than the manifest says, or when this
        processor would compute the int8 layers wrongly.
        """
        manifest = model_folder.read_manifest(Path(model_config.model))
        store = blob_stores.store()
        byte_checks.check_digests(store, manifest)
        if current_platform.is_cpu():
            int8_units.check_processor(manifest)
        loaded = cast(Any, model).load_weights(tensors.load(store, manifest))
        missing = {name for name, _ in model.named_parameters()} - loaded
        missing = {name for name in missing if ATTENTION not in name}
        if missing:
            raise ValueError(f"the manifest has no tensors for {sorted(missing)}")
