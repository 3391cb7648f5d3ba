"""Options of `deploy` about the engine of a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

PANEL = "Engine: without any of these, the options of the model's present deployment stay"
# The name of the option in messages.
KV_MEMORY = "--kv-memory"

Context = Annotated[
    int | None,
    typer.Option(
        help="Tokens that a prompt and its answer may have together. Default: the model's own.",
        rich_help_panel=PANEL,
    ),
]
KvMemory = Annotated[
    str | None,
    typer.Option(KV_MEMORY, help="Memory for keys and values, such as 2GB.", rich_help_panel=PANEL),
]
TensorParallel = Annotated[
    int | None, typer.Option(help="GPUs that share the tensors.", rich_help_panel=PANEL)
]
Dtype = Annotated[
    str | None,
    typer.Option(help="Compute in float32, bfloat16 or float16.", rich_help_panel=PANEL),
]
ChatTemplate = Annotated[
    Path | None,
    typer.Option(
        help="File with a Jinja template that turns messages into a prompt.", rich_help_panel=PANEL
    ),
]
ToolParser = Annotated[
    str | None, typer.Option(help="vLLM's parser of tool calls.", rich_help_panel=PANEL)
]
EngineArgs = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-arg",
        metavar="NAME=VALUE",
        help="More arguments of vLLM: max_num_seqs, max_num_batched_tokens, enable_prefix_caching,"
        " block_size. Repeat it for more.",
        rich_help_panel=PANEL,
    ),
]
Defaults = Annotated[
    bool,
    typer.Option(
        "--default-options", help="Go back to the defaults of all of these.", rich_help_panel=PANEL
    ),
]


def fields(
    *,
    context: int | None,
    kv_memory: str | None,
    tensor_parallel: int | None,
    dtype: str | None,
    chat_template: Path | None,
    tool_parser: str | None,
    engine_args: Sequence[str] | None,
    defaults: bool,
) -> dict[str, Any] | None:
    """Return the options of a request; None if none is given, so that the present ones stay.

    Raises InvalidInput for a file that is not there, a wrong size, and defaults beside others.
    """
    from registry.errors import InvalidInput
    from service import assignments, quantities

    given = {
        "context": context,
        "kv_memory_bytes": kv_memory and quantities.read_size(kv_memory, at=KV_MEMORY),
        "tensor_parallel": tensor_parallel,
        "dtype": dtype,
        "chat_template": chat_template and _read(chat_template),
        "tool_parser": tool_parser,
        "engine_args": assignments.read_plain(engine_args or ()) or None,
    }
    found = {field: value for field, value in given.items() if value is not None}
    if defaults and found:
        raise InvalidInput(f"--default-options beside {', '.join(found)}: give one or the others")
    return found if found or defaults else None


def _read(path: Path) -> str:
    """Return the text of a file. Raises InvalidInput."""
    from registry.errors import InvalidInput

    try:
        return path.read_text()
    except OSError as error:
        raise InvalidInput(f"--chat-template: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"--chat-template: {path} is no text in UTF-8") from error
