"""Which weight matrices of a checkpoint can be set to zero. Free of torch.

Source: Divergent Token Metrics (arXiv 2311.01544, on sparsification): every weight matrix of
attention and FFN is a component with its own share of zeros. In a mixture, each matrix of each
expert is one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from registry.checkpoints.int8_config import int8_modules
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.tensor_names import WEIGHT, is_attention, linear_in_block

Kind = Literal["attention", "ffn"]
# The share of zero weights of each component, by its name; a missing component has 0.
Shares = Mapping[str, float]


@dataclass(frozen=True)
class Component:
    """The weight matrix of the linear layer `name` in block `layer`."""

    name: str
    layer: int
    num_weights: int

    @property
    def kind(self) -> Kind:
        """The kind of layer that the matrix belongs to."""
        return "attention" if is_attention(self.name + WEIGHT) else "ffn"


def components(manifest: Manifest) -> tuple[Component, ...]:
    """Return the components of a checkpoint in the order of the network, without int8 layers.

    Raises InvalidCheckpoint for a quantization that is not supported.
    """
    int8_already = int8_modules(manifest.config)
    matches = ((linear_in_block(name), entry) for name, entry in manifest.tensors.items())
    matrices = [
        Component(*linear, entry.num_numbers)
        for linear, entry in matches
        if linear is not None and linear[0] not in int8_already
    ]
    return tuple(sorted(matrices, key=lambda component: component.layer))


def total_share(components: Sequence[Component], shares: Shares) -> float:
    """Return the share of zeros among the weights of all components."""
    num_zeros = sum(shares.get(c.name, 0.0) * c.num_weights for c in components)
    return num_zeros / sum(c.num_weights for c in components)
