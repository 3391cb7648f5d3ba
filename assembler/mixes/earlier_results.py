"""Find what other versions have made from the same inputs, so that no step is done twice.

A finetune or a compression is the same if it starts from the same checkpoint, by digest, with the
same documents and the same part of the recipe. So a mix that is requested again after a failure, or
with another policy, goes on where the first one stopped.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from assembler.tables import RETRIED_STATES, MixVersion
from registry.blobs.blobs import BlobStore
from registry.checkpoints import manifests
from registry.errors import NotFound
from registry.settings import settings

LongStep = Literal["finetune", "compress"]

# The columns that a step fills.
RESULTS: dict[LongStep, tuple[str, ...]] = {
    "finetune": ("finetuned_digest", "environment"),
    "compress": ("compressed_digest", "curve_digest", "environment"),
}


def long_step(step: str) -> LongStep | None:
    """Return the step if its results are looked for, None if it is done anew each time."""
    return next((each for each in RESULTS if each == step), None)


def twins(session: Session, version: MixVersion, *, step: LongStep) -> Sequence[MixVersion]:
    """Return the other versions whose step has the same inputs, newest first, with their mixes."""
    rows = session.scalars(
        select(MixVersion)
        .where(MixVersion.assembled_digest == version.assembled_digest, MixVersion.id != version.id)
        .order_by(MixVersion.id.desc())
    )
    return [row for row in rows if _inputs(row, step) == _inputs(version, step)]


def result_of(
    found: Sequence[MixVersion], blobs: BlobStore, *, step: LongStep
) -> MixVersion | None:
    """Return the first version that has the result of a step, with all its blobs in the store."""
    for twin in found:
        digest = getattr(twin, RESULTS[step][0])
        if digest is not None and _is_whole(digest, blobs):
            return twin
    return None


def checkpoints_path(job_id: str) -> Path:
    """Return the folder of the checkpoints of a job's finetune."""
    return settings().cache_path / "jobs" / job_id


def take_checkpoints(version: MixVersion, found: Sequence[MixVersion]) -> MixVersion | None:
    """Take over the checkpoints of a twin that does not run; return the twin.

    A rename lets only one version have them.
    """
    own = checkpoints_path(version.job_id)
    for twin in found:
        if own.exists():
            return None
        if twin.state in RETRIED_STATES and checkpoints_path(twin.job_id).exists():
            own.parent.mkdir(parents=True, exist_ok=True)
            try:
                checkpoints_path(twin.job_id).rename(own)
            except FileNotFoundError:
                continue
            return twin
    return None


def _inputs(version: MixVersion, step: LongStep) -> tuple[object, ...]:
    """Return what decides the result of a step, without what other steps read."""
    recipe = version.recipe
    start = version.assembled_digest if step == "finetune" else version.trained_digest
    # The experts pin the documents, the base says which experts are new.
    return start, recipe[step], recipe["experts"], recipe.get("base")


def _is_whole(digest: str, blobs: BlobStore) -> bool:
    try:
        manifest = manifests.load(blobs, digest)
    except NotFound:
        return False
    return all(blobs.size(each) is not None for each in manifest.digests())
