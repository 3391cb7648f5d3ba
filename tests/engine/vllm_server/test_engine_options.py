"""Options are stored as what is not the default."""

import pytest
from pydantic import ValidationError

from engine.vllm_server.engine_options import DEFAULT, EngineOptions


def test_defaults_store_nothing() -> None:
    assert DEFAULT.stored() == {}
    assert EngineOptions.model_validate({"context": None, "engine_args": {}}).stored() == {}


def test_what_is_stored_is_read_again() -> None:
    fields = {"context": 64, "engine_args": {"enable_prefix_caching": False}}
    options = EngineOptions.model_validate(fields)
    assert options.stored() == fields
    assert EngineOptions.model_validate(options.stored()) == options
    assert hash(options) == hash(EngineOptions.model_validate(fields))


def test_people_read_a_template_by_its_length() -> None:
    options = EngineOptions.model_validate(
        {"chat_template": "{{ messages }}", "engine_args": {"max_num_seqs": 4}}
    )
    assert options.listed() == ["chat_template=14 characters", "max_num_seqs=4"]


@pytest.mark.parametrize(
    "fields",
    [
        {"context": "64"},
        {"context": 4},
        {"kv_memory_bytes": 10},
        {"dtype": "int4"},
        {"chat_template": "\x00"},
        {"tool_parser": "her\nmes"},
        {"engine_args": {"max_num_seqs": True}},
        {"engine_args": {"model": "/etc"}},
        {"block_size": 32},
    ],
)
def test_wrong_types_and_unknown_fields_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EngineOptions.model_validate(fields)
