"""What several resources share."""

from typing import Annotated, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from registry.texts import UNFIT, name_of_character

T = TypeVar("T")

# Ids and numbers of rows are integers of 32 bits.
MAX_ID = 2**31 - 1
Id = Annotated[int, Field(ge=1, le=MAX_ID)]


def _fit(text: str) -> str:
    """Return a text without unfit characters. Raises ValueError."""
    if found := UNFIT.search(text):
        raise ValueError(f"holds {name_of_character(found[0])}")
    return text


# A name, or `name@number`: longer ones exist nowhere.
Line = Annotated[str, Field(max_length=255), AfterValidator(_fit)]
# Addresses with signatures are the longest.
Address = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_fit)]
Text = Annotated[str, Field(max_length=100_000), AfterValidator(_fit)]
# Experts of a request, and other short lists of names.
Lines = Annotated[list[Line], Field(max_length=1000)]


class Request(BaseModel):
    """A request body; fields that do not exist, and values of another type, are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Page(BaseModel, Generic[T]):
    """Part of a list. Ask for the next part with `after`, the id of the last entry."""

    object: Literal["list"] = Field(default="list", description="The kind of this object.")
    data: list[T] = Field(description="The entries of this page.")
    has_more: bool = Field(description="Whether entries follow those of this page.")

    @classmethod
    def of(cls, rows: list[T], *, limit: int) -> Self:
        """Make a page of `limit` rows. Pass one row more if there is one: it sets `has_more`."""
        return cls(data=rows[:limit], has_more=len(rows) > limit)
