"""How far the training of a projection is, as its job reports it."""

from sqlalchemy.orm import Session

from assembler.jobs import job_ids
from assembler.mixes import job_events
from registry.database.tables import Projection, ProjectionState
from service.schemas.families import ProjectionProgress


def find(session: Session, projection: Projection) -> ProjectionProgress | None:
    """Return the progress of a projection that is trained now, as soon as there is any."""
    if projection.state is not ProjectionState.TRAINING:
        return None
    data = job_events.newest_metrics(session, job_ids.of_projection(projection))
    if data is None:
        return None
    return ProjectionProgress(stage=data["what"], percent=100 * data["step"] // data["num_steps"])
