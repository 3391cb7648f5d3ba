"""Find vLLM's parser for the tool calls of a model, by what its chat template asks it to write."""

import json
from pathlib import Path

from registry.checkpoints.file_names import CHAT_TEMPLATE, TOKENIZER_CONFIG

# What a template shows of a call, and the parser that reads such calls. The first that is found
# counts: several families write `<tool_call>`, and say inside in which form.
PARSERS = {
    "[TOOL_CALLS]": "mistral",
    "<function=": "qwen3_coder",
    "<start_function_call>": "functiongemma",
    "<|tool_call|>": "granite",
    "<tool_call>": "hermes",
    "<|python_tag|>": "llama3_json",
    # Llama 3 writes nothing around its calls; this is how its template describes them.
    '{"name": function name, "parameters"': "llama3_json",
}
# The variable of a template with the tools of a request.
TOOLS = "tools"


def find(folder: Path) -> str | None:
    """Return the parser for a model folder; None when its template takes no tools.

    None too when it takes tools in a form that no parser here reads.
    """
    template = _template(folder)
    if TOOLS not in template:
        return None
    return next((parser for mark, parser in PARSERS.items() if mark in template), None)


def _template(folder: Path) -> str:
    """Return the chat template of a folder; empty without one."""
    if (path := folder / CHAT_TEMPLATE).is_file():
        return path.read_text()
    if not (path := folder / TOKENIZER_CONFIG).is_file():
        return ""
    found = json.loads(path.read_text()).get("chat_template") or ""
    if isinstance(found, str):
        return found
    # Older checkpoints name several templates.
    named = {entry["name"]: str(entry["template"]) for entry in found}
    return named.get("tool_use", named.get("default", ""))
