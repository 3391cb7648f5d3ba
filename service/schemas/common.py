"""What several resources share."""

from typing import Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class Request(BaseModel):
    """A request body; fields that do not exist are refused."""

    model_config = ConfigDict(extra="forbid")


class Page(BaseModel, Generic[T]):
    """Part of a list. Ask for the next part with `after`, the id of the last entry."""

    object: Literal["list"] = Field(default="list", description="The kind of this object.")
    data: list[T] = Field(description="The entries of this page.")
    has_more: bool = Field(description="Whether entries follow those of this page.")

    @classmethod
    def of(cls, rows: list[T], *, limit: int) -> Self:
        """Make a page of `limit` rows. Pass one row more if there is one: it sets `has_more`."""
        return cls(data=rows[:limit], has_more=len(rows) > limit)
