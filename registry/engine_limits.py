"""Settings of engines: how much memory they have, and how long others wait for them."""

from pydantic import Field
from pydantic_settings import BaseSettings


class EngineLimits(BaseSettings):
    """The part of the settings about engines."""

    engine_memory_bytes: int | None = Field(
        default=None,
        gt=0,
        description="Memory of a host for engines. If a model needs more than is left, those that"
        " were not used for longest fall asleep. The default is four fifths of the machine's"
        " memory, and no limit where engines run on GPUs.",
    )
    wake_seconds: float = Field(
        default=300.0,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="How long a request waits for a model that is asleep.",
    )
    max_waiting_requests: int = Field(
        default=256,
        ge=0,
        description="Requests of one web process that wait for models that are asleep; further ones"
        " get 503.",
    )
    engine_silence_seconds: float = Field(
        default=20.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="An engine that answers no probe and writes no token so long is replaced.",
    )
    first_byte_seconds: float = Field(
        default=600.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="How long an engine may take until its answer begins, waiting in its queue"
        " included. An answer without a stream begins when it is complete.",
    )
    event_seconds: float = Field(
        default=60.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="How long an engine may take from one event of a stream to the next.",
    )
    drain_seconds: float = Field(
        default=600.0,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="How long answers that have begun may take to end when a model is replaced or"
        " no longer served, and when the service stops. Then they end with an error.",
    )
