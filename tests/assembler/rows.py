"""Rows and blobs of a tiny family, as uploads would have left them, ready to be mixed."""

import numpy as np
from sqlalchemy.orm import Session

from assembler.embedder import EMBEDDER, embedder_digest
from registry import embeddings, manifests, projections
from registry.architecture import Shape, projection_shapes
from registry.blobs import BlobStore, put_bytes
from registry.manifests import Manifest, TensorEntry
from registry.tables import Expert, ExpertVersion, Family, Projection, VersionState
from tests import tiny

EMBEDDING_SIZE = 384


def add_family(session: Session, blobs: BlobStore, *, name: str = "tiny") -> Family:
    seed = tiny.store_manifest(blobs)
    family = Family(
        name=name, licence="Apache-2.0", state=VersionState.READY, seed_digest=seed.digest
    )
    session.add(family)
    session.flush()
    return family


def add_expert(
    session: Session, blobs: BlobStore, family: Family, *, number: int, embedded: bool = True
) -> ExpertVersion:
    """Expert `number` of `tests.tiny`, named expert-NUMBER, in its first version."""
    expert = Expert(name=f"expert-{number}", family=family, licence="Apache-2.0")
    version = ExpertVersion(
        expert=expert,
        number=1,
        state=VersionState.READY,
        manifest_digest=tiny.store_manifest(blobs, expert=number).digest,
        documents_digest=tiny.store_documents(blobs, expert=number),
    )
    session.add_all([expert, version])
    session.flush()
    if embedded:
        embeddings.store(
            session,
            version,
            vector=np.random.default_rng(number).standard_normal(EMBEDDING_SIZE).tolist(),
            embedder=EMBEDDER,
            embedder_digest=embedder_digest(),
            num_documents=6,
        )
    return version


def add_projection(session: Session, blobs: BlobStore, family: Family) -> Projection:
    """A projection with random weights, ready."""
    projection = projections.request(
        session,
        family=family.name,
        documents_digest="0" * 64,
        embedder_digest=embedder_digest(),
        training={},
    )
    digest = manifests.store(blobs, _projection_manifest(blobs))
    projections.mark_ready(session, projection, manifest_digest=digest, metrics={})
    return projection


def add_all(session: Session, blobs: BlobStore, *, num_experts: int = 2) -> Family:
    """A family with experts 1 to `num_experts`, all embedded, and a projection."""
    family = add_family(session, blobs)
    for number in range(1, num_experts + 1):
        add_expert(session, blobs, family, number=number)
    add_projection(session, blobs, family)
    return family


def _projection_manifest(blobs: BlobStore) -> Manifest:
    random = np.random.default_rng(0)
    shapes: dict[str, Shape] = {"domain_center": (EMBEDDING_SIZE,)}
    for layer in range(tiny.ARCHITECTURE.num_hidden_layers):
        # The projection sees a constant beside the vector.
        block = projection_shapes(tiny.ARCHITECTURE.hidden_size, EMBEDDING_SIZE + 1)
        shapes |= {f"model.layers.{layer}.mlp.gate.{name}": s for name, s in block.items()}
    tensors = {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape, np.float32) / np.sqrt(shape[-1], dtype=np.float32)
        tensors[name] = TensorEntry("F32", shape, put_bytes(blobs, values.tobytes()))
    config = {"num_hidden_layers": tiny.ARCHITECTURE.num_hidden_layers, "metrics": {}}
    return Manifest(config=config, tensors=tensors)
