"""Limits of what clients may send: sizes, rates and numbers of requests."""

from pydantic import Field
from pydantic_settings import BaseSettings


class RequestLimits(BaseSettings):
    """The part of the settings that bounds requests; see `registry.settings`."""

    max_upload_bytes: int = Field(
        default=64 * 2**30,
        gt=0,
        description="Size in bytes of the largest tensor or file that is accepted.",
    )
    max_connections: int = Field(
        default=4000, ge=1, description="Connections of clients at a time; more are refused."
    )
    header_seconds: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="How long a client may take from connecting to the end of its header.",
    )
    body_seconds: float = Field(
        default=20.0,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="How long a client may take to send a body, before its rate counts.",
    )
    min_upload_bytes_per_second: int = Field(
        default=16 * 2**10,
        ge=1,
        description="Least average rate at which a body, or what an import fetches, must arrive.",
    )
    upload_seconds: float = Field(
        default=6 * 3600.0,
        gt=0,
        le=604_800,
        allow_inf_nan=False,
        description="Longest time of one upload, or of what an import fetches, at any rate.",
    )
    answer_seconds: float = Field(
        default=60.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="How long a client may leave an answer unread. Then its connection is cut.",
    )
    max_uploads_per_key: int = Field(
        default=64, ge=1, description="Tensors and files that one key may send at a time."
    )
    max_completions_per_key: int = Field(
        default=64, ge=1, description="Requests to models that one key may have running at a time."
    )
    max_requests_per_second: float = Field(
        default=200.0,
        gt=0,
        allow_inf_nan=False,
        description="Requests of one key, on average; twice as many may come at once.",
    )
    cors_origins: str = Field(
        default="",
        description="Origins of other sites whose pages may call `/v1` from a browser, with a key:"
        " `SCHEME://HOST:PORT`, with a space between two, or `*`.",
    )
    max_prompt_bytes: int = Field(
        default=4 * 2**20, ge=1024, description="Size in bytes of the longest request to a model."
    )
    max_answers: int = Field(
        default=64,
        ge=1,
        description="Answers that one request to a model may ask for: prompts times choices.",
    )
    max_logprobs: int = Field(
        default=20, ge=0, description="Alternatives to each token that a request may ask for."
    )
    max_grammar_characters: int = Field(
        default=10_000,
        ge=0,
        description="Characters of a pattern, grammar or schema that an answer must follow.",
    )
