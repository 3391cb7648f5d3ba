"""/keys: make, list and revoke API keys. /sign-in-links: let a browser in."""

from typing import Annotated

from fastapi import APIRouter, Path

from service import keys, sessions
from service.schemas.common import Page
from service.schemas.keys import KeyBody, KeyRequest, NewKeyBody, SignInLinkBody
from service.web.auth import Writer
from service.web.checked_routes import CheckedRoute
from service.web.deps import Session

router = APIRouter(prefix="/keys", tags=["keys"], route_class=CheckedRoute)
link_router = APIRouter(prefix="/sign-in-links", tags=["keys"], route_class=CheckedRoute)

KeyId = Annotated[int, Path(ge=1, le=2**31 - 1, description="Id of the key.")]


# No `Idempotency-Key`: the answer would have to be stored, and it holds the key.
@router.post("", status_code=201)
def create(body: KeyRequest, session: Session, _: Writer) -> NewKeyBody:
    """Make a key. Only this answer shows it."""
    key = keys.create_key(session, name=body.name, scopes=body.scopes, expires_at=body.expires_at)
    row = keys.find(session, key)
    return NewKeyBody(**KeyBody.of(row).model_dump(), key=key)


@router.get("")
def list_all(session: Session, _: Writer) -> Page[KeyBody]:
    """List all keys, newest first, with those that were revoked or have expired."""
    return Page(data=[KeyBody.of(row) for row in keys.find_all(session)], has_more=False)


@router.delete("/{key_id}")
def revoke(key_id: KeyId, session: Session, caller: Writer) -> KeyBody:
    """Revoke a key and end its sessions. Revoking it again changes nothing."""
    return KeyBody.of(keys.revoke(session, key_id, by=caller))


@link_router.post("", status_code=201)
def create_sign_in_link(session: Session, caller: Writer) -> SignInLinkBody:
    """Make a link that signs one browser in with the scopes of your key."""
    link = sessions.create_link(session, caller.key_id)
    return SignInLinkBody(path=f"/sign-in?word={link.word}", expires_at=link.expires_at)
