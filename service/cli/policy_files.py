"""A policy as a file, YAML or JSON: only what it says differs from the default, or the family's."""

import json
from pathlib import Path
from typing import Any

import yaml

from registry.errors import InvalidInput
from service.schemas import PolicyBody


def read(path: Path) -> dict[str, Any]:
    """The fields that a file gives; whether there are such, the service knows.

    Raises InvalidInput for what is no mapping of JSON values, and for a file that is not there.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise InvalidInput(f"{path} is neither YAML nor JSON: {why}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InvalidInput(f"{path} holds no fields: a policy is written as FIELD: VALUE")
    try:
        fields: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{path} has a value that JSON does not know: {error}") from error
    return fields


def text(own: PolicyBody) -> str:
    """As a file that `read` reads."""
    whose = "the default" if own.number is None else f"version {own.number}"
    fields = yaml.safe_dump(own.policy.model_dump(mode="json"), sort_keys=False)
    return f"# Policy of family {own.family}, {whose}; null: measured, not limited.\n{fields}"
