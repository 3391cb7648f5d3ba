"""Check a chat template: it must parse, and write the messages of a short conversation.

It runs in a process of its own, with little time and memory: a template is a program.
`python -m engine.vllm_server.chat_template` reads a template and its special tokens as JSON.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from registry.errors import TimedOut

CONVERSATION = (
    {"role": "user", "content": "How warm is it?"},
    {"role": "assistant", "content": "It is 20 degrees."},
)
CPU_SECONDS = 2
# A busy machine takes longer than the template.
SECONDS = 60.0
MEMORY_BYTES = 2**30
MAX_MESSAGE_CHARACTERS = 500


class Generation(Extension):
    """The block `generation` of transformers, which marks what the assistant has written."""

    tags = {"generation"}  # noqa: RUF012  # jinja declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the inside of a block; only training needs to know where it stood."""
        number = next(parser.stream).lineno
        inside = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(inside, lineno=number)


def problem(template: str, special_tokens: Mapping[str, str]) -> str | None:
    """Return what is wrong with a template, None if nothing is.

    `special_tokens` are those of the tokenizer by name, such as `bos_token`. Raises TimedOut on a
    machine with too much work.
    """
    given = json.dumps({"template": template, "special_tokens": dict(special_tokens)})
    passed_on = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "engine.vllm_server.chat_template"],
            input=given,
            capture_output=True,
            text=True,
            env=passed_on,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise TimedOut("the machine has too much to do to check the template; ask again") from error
    if done.returncode < 0:
        return _late()
    return done.stdout.strip() or None


def _late() -> str:
    return f"takes more than {CPU_SECONDS} s or {MEMORY_BYTES >> 20} MiB to write two messages"


def _find_problem(template: str, special_tokens: Mapping[str, str]) -> str | None:
    """Render the conversation here, as transformers does; return what is wrong."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        text = environment.from_string(template).render(
            messages=CONVERSATION,
            tools=None,
            documents=None,
            add_generation_prompt=True,
            **special_tokens,
        )
    except TemplateSyntaxError as error:
        return f"does not parse: line {error.lineno}: {error.message}"
    except MemoryError:
        return _late()
    except Exception as error:
        # It runs the template's own code, which fails as it likes.
        return f"cannot write two messages: {type(error).__name__}: {error}"
    for message in CONVERSATION:
        if message["content"] not in text:
            return f"leaves out the message of the {message['role']}"
    return None


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Write JSON without the escapes for HTML that jinja's own filter has."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def main() -> None:
    """Print what is wrong with the template on the standard input, or nothing."""
    given = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    found = _find_problem(given["template"], given["special_tokens"])
    sys.stdout.write((found or "")[:MAX_MESSAGE_CHARACTERS])


if __name__ == "__main__":
    main()
