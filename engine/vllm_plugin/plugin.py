"""vLLM's way to us: the entry point `vllm.general_plugins`, called in each of its processes.

Importing this module loads nothing; what vLLM needs to know is said when it calls `register`.
"""

LOAD_FORMAT = "nexusmix"


def register() -> None:
    """Tell vLLM and transformers about the mix and the loader; calling it again is harmless."""
    from transformers import AutoConfig
    from vllm import ModelRegistry
    from vllm.model_executor.model_loader import register_model_loader

    from engine.vllm_plugin.config import NexusConfig
    from engine.vllm_plugin.loader import ManifestLoader
    from registry.architecture import MIX_ARCHITECTURE

    AutoConfig.register(NexusConfig.model_type, NexusConfig, exist_ok=True)
    if MIX_ARCHITECTURE not in ModelRegistry.get_supported_archs():
        # By name: the network is imported only by the process that runs it.
        ModelRegistry.register_model(MIX_ARCHITECTURE, "engine.vllm_plugin.model:NexusForCausalLM")
        register_model_loader(LOAD_FORMAT)(ManifestLoader)
