"""Find the engine that answers for a model name."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.serving import sleeping
from engine.serving.deployments import GOING_ON_STATES, find_by_model, has_name, has_served
from engine.serving.sleeping import Asleep
from engine.serving.tables import AgentLease, Deployment, DeploymentState
from engine.vllm_server import endpoints
from registry.errors import Unavailable
from registry.settings import settings


class Route(NamedTuple):
    """The address of an engine, see `endpoints`, and whether it serves a preview."""

    address: str
    is_preview: bool


def resolve(session: Session, model: str) -> Route:
    """Return the route to what answers for a model name, see `find_answering`.

    Raises NotFound when the model is not deployed, Asleep when a request may wait for it, and
    Unavailable while it starts, when it has failed, or when it runs on a host that this one does
    not reach.
    """
    found = find_answering(session, model)
    if found is not None and found.address is not None:
        if found.host in (None, settings().host_name):
            return Route(found.address, found.is_preview)
        address = endpoints.PEER + _web_address(session, str(found.host), model)
        return Route(address, found.is_preview)
    newest = find_by_model(session, model)
    if any(map(sleeping.is_asleep, _candidates(session, model))):
        raise Asleep(f"{model!r} was asleep, and is being woken; try again in a few seconds")
    if newest.state is DeploymentState.FAILED:
        raise Unavailable(f"the deployment of {model!r} failed; its page says why")
    raise Unavailable(f"{model!r} is starting; try again in a few seconds")


def find_answering(session: Session, model: str) -> Deployment | None:
    """Return the deployment that answers for a model name now, or None.

    A release goes before previews, also while it is restarted; of previews the newest answers.
    """
    rows = _candidates(session, model)
    return next((row for row in rows if row.state is DeploymentState.READY), None)


def available(session: Session) -> dict[str, Deployment]:
    """Return the deployments that answer requests, by model name; those asleep are woken by one.

    A preview beside a release of its name is found under NAME@NUMBER.
    """
    query = select(Deployment).where(Deployment.state.in_(GOING_ON_STATES))
    found = {}
    for row in session.scalars(query.order_by(Deployment.model, Deployment.id)):
        if _answers(row):
            first = next(filter(_answers, _candidates(session, row.model)), None)
            name = row.model if first is row else row.ref
            if name is not None:
                found[name] = row
    return found


def _answers(row: Deployment) -> bool:
    return row.state is DeploymentState.READY or sleeping.is_asleep(row)


def _candidates(session: Session, model: str) -> Sequence[Deployment]:
    """Return what may answer for a model name, the newest first: releases, or else previews."""
    query = select(Deployment).where(has_name(model), Deployment.state.in_(GOING_ON_STATES))
    rows = session.scalars(query.order_by(Deployment.id.desc())).all()
    releases = [row for row in rows if not row.is_preview and has_served(row)]
    return releases or [row for row in rows if row.is_preview]


def _web_address(session: Session, host: str, model: str) -> str:
    lease = session.get(AgentLease, host)
    if lease is None or lease.web_address is None:
        raise Unavailable(f"{model!r} runs on host {host!r}, whose service listens to itself only")
    return lease.web_address
