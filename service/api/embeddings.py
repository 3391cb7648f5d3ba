"""/v1/embeddings: vectors of texts by the encoder that finds experts."""

import base64
import struct
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from assembler.routing.embedder import EMBEDDER
from assembler.routing.numpy_encoder import WIDTH, QueryEncoder, query_encoder
from registry.errors import InvalidInput, NotFound, Problem
from service.schemas.common import Line, Text
from service.web.auth import Application
from service.web.checked_routes import CheckedRoute
from service.web.threads import ENCODING

router = APIRouter(prefix="/v1", tags=["openai"], route_class=CheckedRoute)

# One text takes about 50 ms of a core.
MAX_TEXTS = 64


def _not_empty(text: str) -> str:
    """Return a text that is not empty. Raises ValueError."""
    if not text.strip():
        raise ValueError("is empty")
    return text


Input = Annotated[Text, AfterValidator(_not_empty)]


class EmbeddingsRequest(BaseModel):
    """The request of OpenAI's clients; fields that we do not know are ignored, as there."""

    # OpenAI's clients grow fields, and older services must go on answering them.
    model_config = ConfigDict(extra="ignore", strict=True)

    model: Line = Field(description=f"The encoder: `{EMBEDDER}`.")
    input: Input | Annotated[list[Input], Field(min_length=1, max_length=MAX_TEXTS)] = Field(
        description="A text, or texts. Only the first 256 tokens of each count."
    )
    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="Numbers, or the base64 of float32 numbers, little-endian."
    )
    dimensions: int | None = Field(
        default=None, description=f"Length of a vector: {WIDTH}, or nothing."
    )


class EmbeddingBody(BaseModel):
    """The vector of one text."""

    object: Literal["embedding"] = Field(default="embedding", description="The kind of object.")
    index: int = Field(description="The position of its text in the request.")
    embedding: list[float] | str = Field(description="The vector, of length 1.")


class EmbeddingsBody(BaseModel):
    """The vectors of a request, in the order of its texts."""

    object: Literal["list"] = Field(default="list", description="The kind of this object.")
    data: list[EmbeddingBody] = Field(description="The vectors.")
    model: str = Field(description="The encoder.")
    usage: dict[str, int] = Field(
        description="`prompt_tokens` and `total_tokens`: tokens that were read, of all texts."
    )


@router.post("/embeddings")
async def embed(body: EmbeddingsRequest, _: Application) -> EmbeddingsBody:
    """Return the vectors of texts, by the sentence encoder that finds the experts of a text.

    Raises NotFound for another model, and InvalidInput for another length of vectors.
    """
    if body.model != EMBEDDER:
        raise NotFound(f"no model {body.model!r} embeds texts: use {EMBEDDER!r}")
    if body.dimensions not in (None, WIDTH):
        detail = f"is {body.dimensions}, the vectors of {EMBEDDER} have {WIDTH} numbers"
        raise InvalidInput(f"dimensions {detail}", problems=(Problem("/dimensions", detail),))
    texts = [body.input] if isinstance(body.input, str) else body.input
    encoder = query_encoder()
    num_tokens, data = 0, []
    for i, text in enumerate(texts):
        # One by one, so that the texts of other requests come in between.
        count, vector = await ENCODING.run(partial(_read, encoder, text))
        num_tokens += count
        data.append(EmbeddingBody(index=i, embedding=_encoded(vector, body.encoding_format)))
    return EmbeddingsBody(
        data=data,
        model=EMBEDDER,
        usage={"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    )


def _read(encoder: QueryEncoder, text: str) -> tuple[int, list[float]]:
    """Return how many tokens of a text are read, and its vector."""
    return encoder.num_tokens(text), encoder.embed(text)


def _encoded(vector: list[float], encoding_format: str) -> list[float] | str:
    if encoding_format == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
