"""The provenance of a mix: digests of its inputs and results, and the environment it was made in.

With the blobs that it names, the same software and the same kind of machine, anyone can make the
mix again and must get the same bytes; see `assembler.jobs.reproduction`.
"""

import platform
from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from assembler.assembly.inputs import MixInputs
from assembler.recipes.recipe import Recipe
from assembler.training.parallelism import num_threads
from engine.gates.report import software_versions
from registry import cpu_features
from registry.blobs.blobs import BlobStore, put_bytes
from registry.checkpoints import numpy_tensors
from registry.checkpoints.manifests import Dtype, TensorEntry, canonical_json
from registry.settings import settings

VECTORS_DTYPE: Dtype = "F32"


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Environment(_Data):
    """What results on a CPU depend on besides their inputs: software, processor, processes."""

    software: dict[str, str]
    machine: str
    processor: str
    # Empty in records of older versions, which did not store it.
    vector_instructions: tuple[str, ...] = ()
    num_threads: int
    # The order of sums depends on the next two as well.
    training_processes: int = 1
    expert_parallel_degree: int = 1

    @classmethod
    def here(cls) -> Self:
        return cls(
            software=software_versions(),
            machine=platform.machine(),
            processor=cpu_features.name(),
            vector_instructions=cpu_features.vector_instructions(),
            num_threads=num_threads(settings().training_processes),
            training_processes=settings().training_processes,
            expert_parallel_degree=settings().expert_parallel_degree,
        )

    def differences(self, other: "Environment") -> list[str]:
        """Describe each difference; without any, the same digests must come out."""
        mine, theirs = (_flat(environment) for environment in (self, other))
        return [
            f"{name}: {mine.get(name)} there, {theirs.get(name)} here"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        ]


class Provenance(_Data):
    """A record of a mix. Digests are SHA-256; lists are in the order of `recipe.experts`."""

    # 2: domain embeddings are router inputs, one for each block.
    schema_version: Literal[2] = 2
    recipe: Recipe
    seed: str
    experts: tuple[str, ...]
    # None for an expert that kept none.
    documents: tuple[str | None, ...]
    # The experts' mean document vectors, one float32 tensor [n, M].
    vectors: str
    vectors_shape: tuple[int, int]
    # The experts' router inputs, float32 [L, R, D] each.
    states: tuple[str, ...]
    # The moments of the experts' inputs; left out where the recipe uses none, as in old records.
    moments: tuple[str | None, ...] = Field(default=(), exclude_if=lambda moments: not moments)
    projection: str | None
    base: str | None
    base_experts: tuple[tuple[str, str], ...]
    base_moments: tuple[str | None, ...] = Field(default=(), exclude_if=lambda moments: not moments)
    environment: Environment
    assembled: str
    finetuned: str | None
    compressed: str | None = None

    @classmethod
    def of(
        cls,
        inputs: MixInputs,
        *,
        environment: Environment,
        assembled: str,
        finetuned: str | None,
        compressed: str | None,
        blobs: BlobStore,
    ) -> Self:
        """Make the record; store the vectors, which only the database has. Raises OutOfSpace."""
        values = np.array(inputs.vectors, np.float32)
        return cls(
            recipe=inputs.recipe,
            seed=inputs.seed_digest,
            experts=inputs.expert_digests,
            documents=inputs.documents_digests,
            vectors=numpy_tensors.write(blobs, values, dtype=VECTORS_DTYPE).digest,
            vectors_shape=(values.shape[0], values.shape[1]),
            states=inputs.states_digests,
            moments=inputs.moments_digests,
            projection=inputs.projection_digest,
            base=inputs.base_digest,
            base_experts=inputs.base_experts,
            base_moments=inputs.base_moments_digests,
            environment=environment,
            assembled=assembled,
            finetuned=finetuned,
            compressed=compressed,
        )

    @property
    def made(self) -> str:
        """Return the digest of the final checkpoint."""
        return self.compressed or self.finetuned or self.assembled

    def inputs(self, blobs: BlobStore) -> MixInputs:
        """Return the inputs to make the mix again. Raises NotFound if the vectors are lost."""
        entry = TensorEntry(VECTORS_DTYPE, self.vectors_shape, self.vectors)
        return MixInputs(
            recipe=self.recipe,
            seed_digest=self.seed,
            expert_digests=self.experts,
            documents_digests=self.documents,
            vectors=tuple(numpy_tensors.read(blobs, entry).tolist()),
            states_digests=self.states,
            moments_digests=self.moments,
            projection_digest=self.projection,
            base_digest=self.base,
            base_experts=self.base_experts,
            base_moments_digests=self.base_moments,
        )

    def store(self, blobs: BlobStore) -> str:
        """Store the record and return its digest. Raises OutOfSpace."""
        return put_bytes(blobs, canonical_json(self.model_dump(mode="json")))


def _flat(environment: Environment) -> Mapping[str, str]:
    own = environment.model_dump(exclude={"software"})
    return {name: str(value) for name, value in (own | environment.software).items()}
