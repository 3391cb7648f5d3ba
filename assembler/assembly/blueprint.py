"""The inputs and the network of a planned mix, from manifests alone."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from assembler.assembly.extend import Base
from assembler.assembly.inputs import MixInputs
from assembler.recipes.mix_architecture import mixture_of
from assembler.recipes.recipe import Recipe
from registry.blobs.blobs import BlobStore
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import DTYPE_BYTES, Dtype, Manifest
from registry.checkpoints.tensor_names import DOMAIN_EMBEDDINGS, FINAL_NORM, is_projection


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """The manifests of a mix's inputs, and the architecture of the mix."""

    inputs: MixInputs
    mix: Architecture
    seed: Manifest
    experts: tuple[Manifest, ...]
    projection: Manifest | None
    base: Base | None

    @classmethod
    def of(cls, inputs: MixInputs, blobs: BlobStore) -> Self:
        """Load the manifests. Raises NotFound; Incompatible if the recipe contradicts itself."""
        recipe, parts = inputs.recipe, inputs.parts(blobs)
        dense = parts.seed.architecture
        return cls(
            inputs=inputs,
            mix=dense
            if recipe.kind == "dense_merge"
            else mixture_of(recipe, dense, vector_size=len(inputs.vectors[0])),
            seed=parts.seed,
            experts=parts.experts,
            projection=parts.projection,
            base=parts.base,
        )

    @property
    def recipe(self) -> Recipe:
        return self.inputs.recipe

    @cached_property
    def tensor_bytes(self) -> dict[str, int]:
        """Return the size of every tensor of the mix in bytes."""
        return {
            name: math.prod(shape) * DTYPE_BYTES[self._dtype(name)]
            for name, shape in self.mix.tensor_shapes().items()
        }

    @property
    def num_bytes(self) -> int:
        return sum(self.tensor_bytes.values())

    def _dtype(self, name: str) -> Dtype:
        if name == DOMAIN_EMBEDDINGS:
            return "F32"
        if is_projection(name):
            learned = self.projection if self.base is None else self.base.mix
            assert learned is not None, "the recipe needs it"
            # A projection that starts at random is as precise as the family's.
            return learned.tensors[name].dtype
        return self.seed.tensors[FINAL_NORM].dtype
