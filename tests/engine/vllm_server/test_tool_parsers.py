"""The parser of tool calls follows the chat template."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.vllm_server import tool_parsers

TAKES_TOOLS = "{% if tools %}{{ tools | tojson }} "


@pytest.mark.parametrize(
    ("template", "parser"),
    [
        (TAKES_TOOLS + "Write <tool_call> around calls.{% endif %}", "hermes"),
        (TAKES_TOOLS + "Write <tool_call><function=NAME>.{% endif %}", "qwen3_coder"),
        (TAKES_TOOLS + "[TOOL_CALLS]{% endif %}", "mistral"),
        (TAKES_TOOLS + 'As {"name": function name, "parameters": ...}.{% endif %}', "llama3_json"),
        (TAKES_TOOLS + "In your own way.{% endif %}", None),
        ("<tool_call> is only a word here", None),
        ("{{ messages }}", None),
    ],
)
def test_a_parser_is_found_by_the_template(
    tmp_path: Path, template: str, parser: str | None
) -> None:
    (tmp_path / "chat_template.jinja").write_text(template)
    assert tool_parsers.find(tool_parsers.template_of(tmp_path)) == parser


def test_a_template_may_stand_in_the_tokenizers_config(tmp_path: Path) -> None:
    template = TAKES_TOOLS + "<tool_call>{% endif %}"
    for stands in (
        template,
        [{"name": "default", "template": ""}, {"name": "tool_use", "template": template}],
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": stands}))
        assert tool_parsers.find(tool_parsers.template_of(tmp_path)) == "hermes"


def test_a_folder_without_a_template_has_no_parser(tmp_path: Path) -> None:
    assert tool_parsers.find(tool_parsers.template_of(tmp_path)) is None
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert tool_parsers.find(tool_parsers.template_of(tmp_path)) is None


@pytest.mark.slow
def test_the_parsers_are_those_that_vllm_registers() -> None:
    """In a process of its own: vLLM takes memory that the other tests need."""
    code = (
        "from vllm.tool_parsers import ToolParserManager\n"
        "print(*ToolParserManager.list_registered())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    registered = tool_parsers.registered()
    assert registered is not None
    assert registered == frozenset(done.stdout.split())
    assert registered >= set(tool_parsers.PARSERS.values())
