"""The client for API keys, and for links that sign in."""

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from service.client.connection import Connection
from service.schemas.keys import KeyBody, NewKeyBody, SignInLinkBody
from service.scopes import Scope


class KeyClient:
    """Manages the keys of the service at `address`, with a key that has the scope ADMIN.

    Every method raises the error of `registry.errors` that the service raised, and Unavailable when
    the service does not answer.
    """

    def __init__(self, address: str, *, key: str) -> None:
        self.address = address
        self._connection = Connection(address, key=key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def create(
        self, name: str, *, scopes: Sequence[Scope], expires_at: datetime | None = None
    ) -> NewKeyBody:
        """Make a key; only the answer shows it."""
        body = {
            "name": name,
            "scopes": list(scopes),
            "expires_at": expires_at and expires_at.isoformat(),
        }
        return NewKeyBody.model_validate(self._connection.post("/keys", body))

    def find_all(self) -> list[KeyBody]:
        """Return all keys, newest first, with those that were revoked or have expired."""
        page = self._connection.get("/keys")
        return [KeyBody.model_validate(entry) for entry in page["data"]]

    def revoke(self, key_id: int) -> KeyBody:
        """Revoke a key and end its sessions. Raises NotFound, and Conflict for the own key."""
        return KeyBody.model_validate(self._connection.delete(f"/keys/{key_id}"))

    def create_sign_in_link(self) -> SignInLinkBody:
        """Make a link that signs one browser in with the scopes of this client's key."""
        return SignInLinkBody.model_validate(self._connection.post("/sign-in-links"))
