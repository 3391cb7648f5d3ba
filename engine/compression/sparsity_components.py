"""What of a checkpoint may be set to zero, matrix by matrix. Free of torch.

Source: Divergent Token Metrics (arXiv 2311.01544, on sparsification): every weight matrix of
attention and FFN is a component with a share of zeros of its own. Of a mixture so is each matrix of
each expert.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from registry.architecture import is_attention
from registry.int8_config import WEIGHT, int8_modules
from registry.manifests import Manifest

PROJECTION = re.compile(
    r"(?P<module>model\.layers\.(?P<layer>\d+)\..+\.(q|k|v|o|gate|up|down)_proj)\.weight"
)

Kind = Literal["attention", "ffn"]
# Of the weights of each component, by its name, those that are zero; 0 where nothing is said.
Shares = Mapping[str, float]


@dataclass(frozen=True)
class Component:
    """The matrix of the linear layer `name`, in block `layer`."""

    name: str
    layer: int
    num_weights: int

    @property
    def kind(self) -> Kind:
        return "attention" if is_attention(self.name + WEIGHT) else "ffn"


def components(manifest: Manifest) -> tuple[Component, ...]:
    """Those of a checkpoint in the order of the network, but those that are int8.

    Raises InvalidCheckpoint for a quantization that is not supported.
    """
    done = int8_modules(manifest.config)
    found = ((PROJECTION.fullmatch(name), entry) for name, entry in manifest.tensors.items())
    matrices = [
        Component(match["module"], int(match["layer"]), entry.num_numbers)
        for match, entry in found
        if match is not None and match["module"] not in done
    ]
    return tuple(sorted(matrices, key=lambda component: component.layer))


def total_share(components: Sequence[Component], shares: Shares) -> float:
    """Of the weights of all components, those that are zero."""
    num_zeros = sum(shares.get(c.name, 0.0) * c.num_weights for c in components)
    return num_zeros / sum(c.num_weights for c in components)
