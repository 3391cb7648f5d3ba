"""/signing-key: the public key that verifies published mixes."""

from fastapi import APIRouter

from registry.checkpoints import attestations
from registry.settings import settings
from service.schemas.checkpoints import SigningKeyBody
from service.web.auth import Reader
from service.web.checked_routes import CheckedRoute

router = APIRouter(prefix="/signing-key", tags=["operation"], route_class=CheckedRoute)


@router.get("")
def get(_: Reader) -> SigningKeyBody:
    """Return the public key that verifies the signatures of this service."""
    key = attestations.signing_key(settings().signing_key_path)
    return SigningKeyBody(public_key=attestations.public_key(key))
