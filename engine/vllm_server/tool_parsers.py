"""Find vLLM's parser for the tool calls of a model, by what its chat template asks it to write."""

import ast
import importlib.util
import json
from functools import cache
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
# The table of vLLM's parsers by name, in the module of this name.
TABLE = "_TOOL_PARSERS_TO_REGISTER"
MODULE = Path("tool_parsers", "__init__.py")


def find(template: str) -> str | None:
    """Return the parser for a chat template; None when it takes no tools.

    None too when it takes tools in a form that no parser here reads.
    """
    if TOOLS not in template:
        return None
    return next((parser for mark, parser in PARSERS.items() if mark in template), None)


def template_of(folder: Path) -> str:
    """Return the chat template of a model folder; empty without one."""
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


@cache
def registered() -> frozenset[str] | None:
    """Return the names of the parsers of the installed vLLM; None where none is installed.

    They are read from its source: to import vLLM takes seconds and memory that a web process has no
    use for.
    """
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        return None
    tree = ast.parse((Path(found.origin).parent / MODULE).read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if TABLE in names:
                return frozenset(ast.literal_eval(key) for key in node.value.keys if key)
    raise LookupError(f"{found.origin} has no table {TABLE}")
