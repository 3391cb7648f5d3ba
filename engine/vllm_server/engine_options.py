"""What can be chosen about the engine of one deployment; see `option_checks` for what fits."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from registry.texts import UNFIT, UNFIT_FOR_LINES, name_of_character

EngineDtype = Literal["float32", "bfloat16", "float16"]

MIN_CONTEXT = 16
MIN_KV_BYTES = 2**20
# More than any machine has.
MAX_KV_BYTES = 2**50
MAX_TEMPLATE_CHARACTERS = 100_000


def _fit(text: str) -> str:
    """Return a template without unfit characters. Raises ValueError."""
    if found := UNFIT.search(text):
        raise ValueError(f"holds {name_of_character(found[0])}")
    return text


def _fit_for_a_line(text: str) -> str:
    """Return one word without unfit characters. Raises ValueError."""
    if found := UNFIT_FOR_LINES.search(text):
        raise ValueError(f"holds {name_of_character(found[0])}")
    return text


class _Options(BaseModel):
    """Fields that do not exist, and values of another type, are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class EngineArguments(_Options):
    """The arguments of vLLM that a deployment may set; null is vLLM's own default."""

    max_num_seqs: int | None = Field(
        default=None, ge=1, le=1024, description="Requests that are computed together."
    )
    max_num_batched_tokens: int | None = Field(
        default=None,
        ge=1,
        le=2**20,
        description="Tokens that are computed in one step; at least `max_num_seqs`.",
    )
    enable_prefix_caching: bool | None = Field(
        default=None,
        description="Whether keys and values of a beginning that several requests share are kept.",
    )
    block_size: Literal[16, 32, 64, 128] | None = Field(
        default=None, description="Tokens in one block of the KV cache; on a CPU at least 32."
    )


class EngineOptions(_Options):
    """How the engine of a deployment runs. What is null is the default."""

    context: int | None = Field(
        default=None,
        ge=MIN_CONTEXT,
        le=2**31 - 1,
        description="Tokens that a prompt and its answer may have together. Default: the model's"
        " own, or as many as its KV memory holds.",
    )
    kv_memory_bytes: int | None = Field(
        default=None,
        ge=MIN_KV_BYTES,
        le=MAX_KV_BYTES,
        description="Memory for keys and values in bytes. Default: 1 GiB on a CPU; on a GPU what is"
        " left of the share of its memory that an engine takes.",
    )
    tensor_parallel: int | None = Field(
        default=None, ge=1, le=64, description="GPUs that share the tensors. Default: 1."
    )
    dtype: EngineDtype | None = Field(
        default=None,
        description="Data type of the computation. Default: `float32` on a CPU and `bfloat16` on a"
        " GPU, as gates compare them.",
    )
    chat_template: (
        Annotated[
            str,
            Field(min_length=1, max_length=MAX_TEMPLATE_CHARACTERS),
            AfterValidator(_fit),
        ]
        | None
    ) = Field(
        default=None,
        description="Jinja template that turns messages into a prompt. Default: the model's own.",
    )
    tool_parser: (
        Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_fit_for_a_line)] | None
    ) = Field(
        default=None,
        description="vLLM's parser of tool calls. By default it follows the chat template.",
    )
    engine_args: EngineArguments = Field(
        default=EngineArguments(), description="More arguments of vLLM."
    )

    def stored(self) -> dict[str, Any]:
        """Return what is not the default, as JSON; equal options are stored equally."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def listed(self) -> list[str]:
        """Return what is not the default as FIELD=VALUE for people; a template by its length."""
        stored = self.stored()
        stored |= stored.pop("engine_args", {})
        if self.chat_template is not None:
            stored["chat_template"] = f"{len(self.chat_template)} characters"
        return [f"{name}={value}" for name, value in stored.items()]


DEFAULT = EngineOptions()
