"""Manifests and documents of a mix's inputs are read once, when they are first needed."""

from sqlalchemy.orm import Session

from assembler.assembly.inputs import gather
from registry.blobs.blobs import LocalBlobs
from registry.database.tables import DomainEmbedding
from tests.assembler import rows, tiny_mixes
from tests.assembler.mix_inputs import inputs


def test_parts_are_read_once(blobs: LocalBlobs) -> None:
    parts = inputs(blobs).parts(blobs)
    assert parts.seed is parts.seed
    assert parts.experts is parts.experts
    assert parts.states.shape[0] == len(parts.experts)
    assert parts.base is None


def test_the_architecture_of_a_manifest_is_validated_once(blobs: LocalBlobs) -> None:
    seed = inputs(blobs).parts(blobs).seed
    assert seed.architecture is seed.architecture


def test_moments_are_named_where_the_recipe_uses_them(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    one, _ = session.query(DomainEmbedding).order_by(DomainEmbedding.id)
    one.moments_digest = "1" * 64
    session.flush()
    recipe = tiny_mixes.recipe(experts=(1, 2))
    given = gather(session, recipe)
    assert given.moments_digests == ("1" * 64, None)
    assert (given.has_moments, given.base_moments_digests) == (False, ())
    plain = gather(session, recipe.model_copy(update={"averaging": "mean"}))
    assert plain.moments_digests == ()
