"""Rows and blobs of a tiny family, in the state in which uploads leave them, ready to be mixed."""

from collections.abc import Sequence

import numpy as np
from sqlalchemy.orm import Session

from assembler.routing.embedder import EMBEDDER, states_embedder_digest, states_shape
from assembler.routing.embedder import embedders as embedders_of
from assembler.routing.router_rows import STATES_CENTER, VECTORS_CENTER
from registry.blobs.blobs import BlobStore, put_bytes
from registry.catalog import embeddings, projections
from registry.catalog.embeddings import Embedders
from registry.checkpoints import manifests, numpy_tensors
from registry.checkpoints.architecture import Shape, projection_shapes
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.database.tables import Expert, ExpertVersion, Family, Projection, VersionState
from tests import tiny

VECTOR_SIZE = 384


def add_family(session: Session, blobs: BlobStore, *, name: str = "tiny") -> Family:
    seed = tiny.store_manifest(blobs)
    family = Family(
        name=name, license="Apache-2.0", state=VersionState.READY, seed_digest=seed.digest
    )
    session.add(family)
    session.flush()
    return family


def add_expert(
    session: Session, blobs: BlobStore, family: Family, *, number: int, embedded: bool = True
) -> ExpertVersion:
    """Add expert `number` of `tests.tiny`, named expert-NUMBER, in its first version."""
    expert = Expert(name=f"expert-{number}", family=family, license="Apache-2.0")
    version = ExpertVersion(
        expert=expert,
        number=1,
        state=VersionState.READY,
        license="Apache-2.0",
        manifest_digest=tiny.store_manifest(blobs, expert=number).digest,
        documents_digest=tiny.store_documents(blobs, expert=number),
    )
    session.add_all([expert, version])
    session.flush()
    if embedded:
        random = np.random.default_rng(number)
        embed(session, blobs, version, random.standard_normal(VECTOR_SIZE).tolist())
    return version


def embed(
    session: Session,
    blobs: BlobStore,
    version: ExpertVersion,
    vector: Sequence[float],
    *,
    states_of: int | None = None,
    num_documents: int = 6,
    embedder: str = EMBEDDER,
    embedders: Embedders | None = None,
) -> None:
    """Store a version's embeddings, by today's embedders by default.

    Router inputs are random; `states_of` gives the id of the version that they are drawn for, by
    default this one.
    """
    shape = states_shape(tiny.ARCHITECTURE.num_hidden_layers, tiny.ARCHITECTURE.hidden_size)
    states = np.random.default_rng(states_of or version.id).standard_normal(shape, np.float32)
    embeddings.store(
        session,
        version,
        vector=vector,
        embedder=embedder,
        num_documents=num_documents,
        states_digest=numpy_tensors.write(blobs, states, dtype="F32").digest,
        num_tokens=100,
        moments_digest=None,
        embedders=embedders or embedders_of(version.expert.family.seed_digest),
    )


def add_projection(
    session: Session, blobs: BlobStore, family: Family, *, embedder_digest: str | None = None
) -> Projection:
    """Add a ready projection with random weights, of today's domain embeddings by default."""
    projection = projections.request(
        session,
        family=family.name,
        # Texts of no expert of the tests.
        documents_digest=tiny.store_documents(blobs, expert=9),
        embedder_digest=embedder_digest or states_embedder_digest(family.seed_digest),
        training={},
    )
    digest = manifests.store(blobs, _projection_manifest(blobs))
    projections.mark_ready(session, projection, manifest_digest=digest, metrics={})
    return projection


def add_all(session: Session, blobs: BlobStore, *, num_experts: int = 2) -> Family:
    """Add a family with embedded experts 1 to `num_experts` and a projection."""
    family = add_family(session, blobs)
    for number in range(1, num_experts + 1):
        add_expert(session, blobs, family, number=number)
    add_projection(session, blobs, family)
    return family


def _projection_manifest(blobs: BlobStore) -> Manifest:
    random = np.random.default_rng(0)
    num_layers, hidden = tiny.ARCHITECTURE.num_hidden_layers, tiny.ARCHITECTURE.hidden_size
    shapes: dict[str, Shape] = {STATES_CENTER: (num_layers, hidden), VECTORS_CENTER: (VECTOR_SIZE,)}
    for layer in range(num_layers):
        # The projection's input has a constant after the router inputs.
        block = projection_shapes(hidden, hidden + 1)
        shapes |= {f"model.layers.{layer}.mlp.gate.{name}": s for name, s in block.items()}
    tensors = {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape, np.float32) / np.sqrt(shape[-1], dtype=np.float32)
        tensors[name] = TensorEntry("F32", shape, put_bytes(blobs, values.tobytes()))
    config = {
        "num_hidden_layers": num_layers,
        "training": {"own_weight": 0.05},
        "metrics": {},
    }
    return Manifest(config=config, tensors=tensors)
