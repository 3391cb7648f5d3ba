"""The entry point `vllm.general_plugins`, which vLLM calls in each of its processes.

Importing this module loads nothing else. The mix is registered when vLLM calls `register`.
"""

LOAD_FORMAT = "nexusmix"


def register() -> None:
    """Register the mix and its loader with vLLM and transformers; a second call changes nothing."""
    from transformers import AutoConfig
    from vllm import ModelRegistry
    from vllm.model_executor.model_loader import register_model_loader

    from engine.vllm_plugin.config import NexusConfig
    from engine.vllm_plugin.loader import ManifestLoader
    from registry.checkpoints.architecture import MIX_ARCHITECTURE

    AutoConfig.register(NexusConfig.model_type, NexusConfig, exist_ok=True)
    if MIX_ARCHITECTURE not in ModelRegistry.get_supported_archs():
        # Registered by name, so that only the process that runs the network imports it.
        ModelRegistry.register_model(MIX_ARCHITECTURE, "engine.vllm_plugin.model:NexusForCausalLM")
        register_model_loader(LOAD_FORMAT)(ManifestLoader)
