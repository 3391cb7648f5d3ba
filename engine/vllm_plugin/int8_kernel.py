"""Choose vLLM's oneDNN kernel for int8 layers of a server that computes in float32.

On x86 processors with AMX, vLLM 0.32 takes another kernel for int8 layers, which accepts inputs in
bfloat16 and half only. A server in float32 then fails at its first token. The oneDNN kernel accepts
float32, and vLLM takes it on all other x86 processors.
"""

import torch
from torch import nn
from vllm.model_executor.kernels import linear
from vllm.model_executor.kernels.linear import CPUInt8ScaledMMLinearKernel
from vllm.platforms import PlatformEnum


class Float32Int8Kernel(CPUInt8ScaledMMLinearKernel):
    """vLLM's int8 kernel for CPUs, always with oneDNN where it computes in float32."""

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """Pack a layer's weights for the kernel. The default dtype is the model's at this time."""
        if torch.get_default_dtype() is torch.float32:
            self.linear_method = self._apply_weights_onednn
            self.process_weights_for_onednn(layer)
        else:
            super().process_weights_after_loading(layer)


def use_onednn_in_float32() -> None:
    """Replace vLLM's kernel by ours in its list for CPUs; a second call changes nothing."""
    kernels = linear._POSSIBLE_INT8_KERNELS[PlatformEnum.CPU]
    kernels[:] = [
        Float32Int8Kernel if kernel is CPUInt8ScaledMMLinearKernel else kernel for kernel in kernels
    ]
