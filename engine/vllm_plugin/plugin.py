"""The entry point `vllm.general_plugins`, which vLLM calls in each of its processes.

Importing this module loads nothing else. The mix is registered when vLLM calls `register`.
"""

LOAD_FORMAT = "nexusmix"


def register() -> None:
    """Register the mix and its loader with vLLM and transformers, and our choice of an int8 kernel.

    A second call changes nothing.
    """
    from transformers import AutoConfig
    from vllm import ModelRegistry
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.platforms import current_platform

    from engine.vllm_plugin.config import NexusConfig
    from engine.vllm_plugin.loader import ManifestLoader
    from registry.bases.supported import BASES
    from registry.checkpoints.architecture import MIX_ARCHITECTURE, MIX_PREFIX

    AutoConfig.register(NexusConfig.model_type, NexusConfig, exist_ok=True)
    if MIX_ARCHITECTURE not in ModelRegistry.get_supported_archs():
        # Registered by name, so that only the process that runs the network imports it.
        ModelRegistry.register_model(MIX_ARCHITECTURE, "engine.vllm_plugin.model:NexusForCausalLM")
        for base in BASES.values():
            name = MIX_PREFIX + base.architecture
            ModelRegistry.register_model(name, f"engine.vllm_plugin.bases:{name}")
        register_model_loader(LOAD_FORMAT)(ManifestLoader)
    if current_platform.is_cpu():
        from engine.vllm_plugin.int8_kernel import use_onednn_in_float32

        use_onednn_in_float32()
