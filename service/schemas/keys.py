"""API keys, and links that sign in."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, Field

from service.schemas.common import Request
from service.scopes import Scope
from service.tables import ApiKey


class KeyRequest(Request):
    """A key to make."""

    name: str = Field(description="Name of the key: who or what uses it.")
    scopes: list[Annotated[Scope, Field(strict=False)]] = Field(
        default=[Scope.READ, Scope.INFER],
        max_length=len(Scope),
        description="What the key may do. No scope includes another.",
    )
    expires_at: AwareDatetime | None = Field(
        default=None, strict=False, description="When the key ends; null: never."
    )


class KeyBody(BaseModel):
    """A key, without its secret."""

    object: Literal["api_key"] = Field(default="api_key", description="The kind of this object.")
    id: int = Field(description="Id of the key.")
    name: str = Field(description="Name of the key.")
    prefix: str = Field(description="How the key begins.")
    scopes: list[str] = Field(description="What it may do.")
    created_at: datetime = Field(description="When it was made.")
    expires_at: datetime | None = Field(description="When it ends; null: never.")
    last_used_at: datetime | None = Field(
        description="When it was last used, to the minute; null: never."
    )
    revoked_at: datetime | None = Field(description="When it was revoked; null: it is good.")

    @classmethod
    def of(cls, row: ApiKey) -> Self:
        """Return the body of a row."""
        return cls(
            id=row.id,
            name=row.name,
            prefix=row.prefix,
            scopes=row.scopes,
            created_at=row.created_at,
            expires_at=row.expires_at,
            last_used_at=row.last_used_at,
            revoked_at=row.revoked_at,
        )


class NewKeyBody(KeyBody):
    """A key that was just made, with its secret."""

    key: str = Field(description="The key itself. It is stored nowhere and never shown again.")


class SignInLinkBody(BaseModel):
    """A link that signs a browser in once."""

    object: Literal["sign_in_link"] = Field(
        default="sign_in_link", description="The kind of this object."
    )
    path: str = Field(description="Path and query of the link, behind the service's address.")
    expires_at: datetime = Field(description="When it ends.")
