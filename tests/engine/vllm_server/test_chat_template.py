"""A template is rendered in a process of its own before an engine gets it."""

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from engine.vllm_server import chat_template
from tests import tiny

LOOP = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    "template",
    [
        LOOP,
        tiny.CHAT_TEMPLATE,
        "{{ bos_token }}{% for m in messages %}{% if loop.first %}{% endif %}{{ m | tojson }}\n"
        "{% endfor %}{{ strftime_now('%Y') }}",
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{% generation %}{{ m['content'] }}{% endgeneration %}{% endfor %}",
    ],
)
def test_what_transformers_renders_is_taken(template: str) -> None:
    assert chat_template.problem(template, {"bos_token": "<s>"}) is None
    content = tiny.tokenizer_files()["tokenizer.json"].decode()
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # theirs
        tokenizer_object=Tokenizer.from_str(content), bos_token="<s>"
    )
    messages = [dict(message) for message in chat_template.CONVERSATION]
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    assert chat_template.CONVERSATION[0]["content"] in text


@pytest.mark.parametrize(
    ("template", "detail"),
    [
        ("{% for m in messages %}\n{{ m.content }", "does not parse: line 2"),
        ("{{ messages[0].content }}", "leaves out the message of the assistant"),
        ("{{ raise_exception('only Latin') }}", "cannot write two messages: TemplateError: only L"),
        ("{{ messages.clear() }}" + LOOP, "cannot write two messages: "),
        ("{{ ''.__class__.__mro__ }}" + LOOP, "cannot write two messages: SecurityError"),
        ("{{ eos_token + 'x' }}" + LOOP, "cannot write two messages: UndefinedError"),
    ],
)
def test_what_is_wrong_is_said(template: str, detail: str) -> None:
    found = chat_template.problem(template, {})
    assert found is not None
    assert found.startswith(detail)


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 9999999999 }}",
    ],
)
def test_a_template_that_takes_too_much_is_ended(template: str) -> None:
    found = chat_template.problem(template, {})
    assert found is not None
    assert "takes more than" in found
