"""Read what experts read, for averages by regression, as their registration does."""

from collections.abc import Collection, Sequence

from assembler.routing import input_moments
from assembler.routing.embedder import DOMAIN_TOKENS
from assembler.routing.router_inputs import RouterInputs
from registry.blobs.blobs import LocalBlobs
from registry.catalog.documents import Document
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.tensor_names import is_ffn
from tests.benchmarks.claims.families.family import Family


def are_needed(family: Family, experts: Collection[str]) -> bool:
    """Tell whether one of these experts changed a tensor that a mix averages."""
    changed = (
        name
        for expert in experts
        for name, entry in family.experts[expert].tensors.items()
        if entry.digest != family.seed.tensors[name].digest
    )
    return not all(map(is_ffn, changed))


def read(expert: Manifest, documents: Sequence[Document], blobs: LocalBlobs) -> str:
    """Store the moments of what an expert reads in its documents, and return their digest."""
    inputs = RouterInputs(expert, blobs)
    linear_inputs = inputs.watch_linears()
    inputs.moments(documents, num_tokens=DOMAIN_TOKENS)
    return input_moments.write(blobs, linear_inputs.moments())
