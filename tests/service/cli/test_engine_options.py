"""Options of `deploy` become the options of a request."""

from pathlib import Path
from typing import Any

import pytest

from registry.errors import InvalidInput
from service.cli import engine_options

NOTHING: dict[str, Any] = {
    "context": None,
    "kv_memory": None,
    "tensor_parallel": None,
    "dtype": None,
    "chat_template": None,
    "tool_parser": None,
    "engine_args": None,
    "defaults": False,
}


def fields(**given: Any) -> dict[str, Any] | None:
    return engine_options.fields(**NOTHING | given)


def test_without_options_the_present_ones_stay() -> None:
    assert fields() is None
    assert fields(defaults=True) == {}


def test_options_have_the_types_of_a_request(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    assert fields(
        context=64,
        kv_memory="2GB",
        chat_template=template,
        engine_args=["max_num_seqs=4", "enable_prefix_caching=false"],
    ) == {
        "context": 64,
        "kv_memory_bytes": 2_000_000_000,
        "chat_template": "{{ messages }}",
        "engine_args": {"max_num_seqs": 4, "enable_prefix_caching": False},
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kv_memory": "much"}, "--kv-memory is 'much', expected a size"),
        ({"chat_template": Path("nowhere.jinja")}, "nowhere.jinja cannot be read"),
        ({"engine_args": ["max_num_seqs"]}, "'max_num_seqs' is not NAME=VALUE"),
        ({"context": 64, "defaults": True}, "--default-options beside context"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        fields(**given)
