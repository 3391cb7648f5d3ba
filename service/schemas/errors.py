"""Errors of all routes below /api/v1."""

from pydantic import BaseModel, Field

from registry.errors import Problem


class ErrorBody(BaseModel):
    """A problem as in RFC 9457, sent as application/problem+json."""

    type: str = Field(default="about:blank", description="Always `about:blank`: see `code`.")
    title: str = Field(description="The HTTP status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong, as a sentence.")
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="The kind of error, for programs to compare.")
    errors: list[Problem] = Field(description="Every wrong part of the request.")
    request_id: str | None = Field(description="Id of the request, as the log has it.")
