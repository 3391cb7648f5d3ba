"""The pages about mixes: the list, the form for a request, and one version."""

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import orm
from sse_starlette import EventSourceResponse

from assembler.mixes import mixes, overrides
from assembler.mixes.new_mix import MIN_EXPERTS
from assembler.recipes import presets
from assembler.routing import nearest_experts
from assembler.tables import MixVersion
from engine.serving import deployments, model_routes
from registry.catalog import artifacts, experts, families
from registry.database.tables import Artifact, VersionState
from registry.errors import Conflict, InvalidInput, NexusmixError
from registry.names import parse_ref
from service.scopes import Scope
from service.ui import live, mix_views, preset_views
from service.ui.forms import OptionsForm, OverrideForm, RequestForm, RevisionForm
from service.ui.rendering import PageRoute, Visitor, page, render
from service.web import engine_options
from service.web.auth import require
from service.web.deps import Blobs, Session

router = APIRouter(prefix="/mixes", route_class=PageRoute, include_in_schema=False)

MAX_ROWS = 100
# The encoder reads only the first few hundred words.
MAX_TEXT_CHARACTERS = 20_000


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An expert that can be chosen; `nearness` is its cosine similarity to the pasted text."""

    name: str
    description: str
    license: str
    chosen: bool
    nearness: float | None = None


@router.get("")
def show_all(request: Request, session: Session, _: Visitor, before: int | None = None) -> Response:
    """List the versions of all mixes, newest first, page by page."""
    versions = mixes.find_page(session, before=before, limit=MAX_ROWS + 1)
    return page(
        request,
        "mixes.html",
        versions=versions[:MAX_ROWS],
        previews={row.ref for row in model_routes.available(session).values() if row.is_preview},
        has_more=len(versions) > MAX_ROWS,
        is_first=before is None,
    )


@router.get("/new")
def show_form(
    request: Request,
    session: Session,
    _: Visitor,
    experts: Annotated[list[str] | None, Query()] = None,
) -> Response:
    """Show the form for a new mix, with some experts selected."""
    return _form(request, session, form=_new_form(experts or []))


@router.get("/preset")
def show_preset(_: Visitor, preset: str = presets.DEFAULT) -> Response:
    """Describe the preset that is selected in the form."""
    return HTMLResponse(render("_preset.html", preset=preset_views.view(preset)))


@router.get("/choices")
def show_choices(session: Session, _: Visitor, family: str) -> Response:
    """Show the experts of another family."""
    return HTMLResponse(render("_choices.html", choices=_choices(session, family, chosen=[])))


@router.post("/suggest")
def suggest(
    session: Session, _: Visitor, family: Annotated[str, Form()], text: Annotated[str, Form()] = ""
) -> Response:
    """Show the choices again, nearest to the text first, with the nearest ones selected."""
    if not text.strip():
        raise InvalidInput("paste some text first")
    near = nearest_experts.nearest(
        session, text[:MAX_TEXT_CHARACTERS], family=family, limit=MAX_ROWS
    )
    names = [neighbor.version.expert.name for neighbor in near]
    nearness = {name: n.similarity for name, n in zip(names, near, strict=True)}
    choices = _choices(session, family, chosen=names[:MIN_EXPERTS], nearness=nearness)
    return HTMLResponse(render("_choices.html", choices=choices))


@router.post("")
def create(
    request: Request,
    session: Session,
    blobs: Blobs,
    visitor: Visitor,
    form: Annotated[RequestForm, Form()],
) -> Response:
    """Request a mix; its problems are shown above the form."""
    if form.deploy:
        require(visitor, Scope.DEPLOY)
    try:
        version = mixes.request(
            session, blobs, form.spec(), deploy=form.deploy, preview=form.preview
        )
    except NexusmixError as error:
        session.rollback()
        return _form(request, session, form=form, error=error)
    return RedirectResponse(f"/mixes/{mixes.ref_of(version)}", status_code=303)


@router.get("/{ref}")
def show(ref: str, request: Request, session: Session, blobs: Blobs, _: Visitor) -> Response:
    """Show a version of a mix. NAME leads to the newest version if none is published."""
    name, number = parse_ref(ref)
    if number is None and not mixes.is_published(session, name):
        return RedirectResponse(f"/mixes/{mixes.ref_of(mixes.newest(session, name))}")
    view = mix_views.view(session, blobs, mixes.get(session, ref))
    return page(request, "mix.html", view=view, form=RevisionForm(deploy=True), error=None)


@router.post("/{ref}/revise")
def revise(
    ref: str,
    request: Request,
    session: Session,
    blobs: Blobs,
    visitor: Visitor,
    form: Annotated[RevisionForm, Form()],
) -> Response:
    """Request a changed version of a finished mix; a problem is shown on the mix's page."""
    if form.deploy:
        require(visitor, Scope.DEPLOY)
    try:
        version = mixes.request(
            session, blobs, form.spec(ref), deploy=form.deploy, preview=form.preview
        )
    except InvalidInput as error:
        session.rollback()
        view = mix_views.view(session, blobs, mixes.get(session, ref))
        return page(request, "mix.html", status=422, view=view, form=form, error=error)
    return RedirectResponse(f"/mixes/{mixes.ref_of(version)}", status_code=303)


@router.get("/{ref}/live")
def show_live(ref: str, session: Session, _: Visitor) -> EventSourceResponse:
    """Stream the live part of a mix's page."""
    mixes.get(session, ref)  # answers 404 for an unknown mix, before the stream starts
    return live.follow(ref)


@router.post("/{ref}/override")
def override(
    ref: str,
    request: Request,
    session: Session,
    blobs: Blobs,
    visitor: Visitor,
    form: Annotated[OverrideForm, Form()],
) -> Response:
    """Publish a mix that its gate refused; a problem is shown on the mix's page."""
    try:
        overrides.override(
            session, blobs, ref, scope=form.waivers(), reason=form.reason, by=visitor.name
        )
    except InvalidInput as error:
        session.rollback()
        view = mix_views.view(session, blobs, mixes.get(session, ref))
        revision = RevisionForm(deploy=True)
        return page(request, "mix.html", status=422, view=view, form=revision, error=error)
    return RedirectResponse(f"/mixes/{ref}", status_code=303)


@router.post("/{ref}/cancel")
def cancel(ref: str, session: Session, _: Visitor) -> Response:
    """Stop making a mix."""
    mixes.cancel(session, ref)
    return RedirectResponse(f"/mixes/{ref}", status_code=303)


@router.post("/{ref}/deploy")
def deploy(
    ref: str,
    request: Request,
    session: Session,
    blobs: Blobs,
    _: Visitor,
    form: Annotated[OptionsForm, Form()],
) -> Response:
    """Serve a published version under the name of its mix, or with other options of its engine.

    Options that do not fit are shown on the mix's page.
    """
    artifact = _artifact(session, mixes.get(session, ref))
    options = None
    if form.chosen:
        try:
            options = engine_options.read(form.fields(), artifact.manifest_digest, blobs)
        except InvalidInput as error:
            session.rollback()
            view = replace(mix_views.view(session, blobs, mixes.get(session, ref)), options=form)
            revision = RevisionForm(deploy=True)
            return page(request, "mix.html", status=422, view=view, form=revision, error=error)
    version = mixes.get(session, ref)
    own = mixes.ref_of(version)
    artifact = _artifact(session, version)
    deployments.request(session, artifact, model=version.mix.name, ref=own, options=options)
    return RedirectResponse(f"/mixes/{own}", status_code=303)


def _artifact(session: orm.Session, version: MixVersion) -> Artifact:
    """Return what a version has published. Raises Conflict if it has not."""
    if version.artifact_id is None:
        raise Conflict(f"{mixes.ref_of(version)} is not published, so it cannot be served")
    return artifacts.get(session, version.artifact_id)


@router.post("/{ref}/retry")
def retry(ref: str, session: Session, _: Visitor) -> Response:
    """Go on with a mix from its last good step."""
    mixes.retry(session, ref)
    return RedirectResponse(f"/mixes/{ref}", status_code=303)


def _new_form(experts: list[str]) -> RequestForm:
    """Return the form as it is shown first."""
    return RequestForm(experts=experts, deploy=True, preview=True)


def _form(
    request: Request,
    session: orm.Session,
    *,
    form: RequestForm,
    error: NexusmixError | None = None,
) -> Response:
    names = [f.name for f in families.find_all(session) if f.state is VersionState.READY]
    if names and form.family not in names:
        family = _family_of(session, form.experts) or names[0]
        form = form.model_copy(update={"family": family})
    return page(
        request,
        "request.html",
        status=422 if error else 200,
        families=names,
        presets=presets.PRESETS,
        preset=preset_views.view(form.preset),
        form=form,
        choices=_choices(session, form.family, chosen=form.experts),
        error=error,
    )


def _family_of(session: orm.Session, chosen: list[str]) -> str | None:
    return experts.find(session, chosen[0]).family.name if chosen else None


def _choices(
    session: orm.Session,
    family: str,
    *,
    chosen: list[str],
    nearness: dict[str, float] | None = None,
) -> list[Choice]:
    """Return the experts of a family with a ready version, nearest first, then by name."""
    near = nearness or {}
    rows = experts.find_page(session, family=family, limit=None)
    names = [expert.name for expert in rows]
    ready = experts.find_newest(session, names, state=VersionState.READY)
    usable = {version.expert_id: version for version in ready}
    choices = [
        Choice(
            name=expert.name,
            description=usable[expert.id].description,
            license=usable[expert.id].license,
            chosen=expert.name in chosen,
            nearness=near.get(expert.name),
        )
        for expert in rows
        if expert.id in usable
    ]
    return sorted(choices, key=lambda choice: (-near.get(choice.name, -1.0), choice.name))
