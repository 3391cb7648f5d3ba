"""Show and set the policy of a family, and read a policy from a file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import yaml

    from service.schemas.families import PolicyBody

app = typer.Typer()
policy = typer.Typer(
    no_args_is_help=True, help="What the mixes of a family must reach to be published."
)
app.add_typer(policy, name="policy", rich_help_panel="Gates")


@policy.command("show")
def show_policy(
    family: Annotated[str, typer.Argument(help="The family whose policy is printed.")],
) -> None:
    """Print the newest version, or the default policy if there is none, as a file for `set`."""
    from service.client.local import connect

    with connect() as client:
        sys.stdout.write(policy_text(client.policy(family)))


@policy.command("set")
def set_policy(
    family: Annotated[str, typer.Argument(help="The family whose policy is set.")],
    file: Annotated[
        Path,
        typer.Argument(help="YAML or JSON. Fields that it leaves out are as in the default."),
    ],
) -> None:
    """Give a family a new version of its policy. Existing mixes keep theirs."""
    from service.client.local import connect
    from service.terminal.console import console

    changes = read_policy(file)
    with connect() as client:
        version = client.set_policy(family, changes)
    console.print(f"new mixes of {family} are gated by version {version.number} of its policy")


def read_policy(path: Path) -> dict[str, Any]:
    """Return the fields in a YAML or JSON file. Only the service checks whether they exist.

    Raises InvalidInput for a file that cannot be read, or holds anything but a mapping of JSON
    values.
    """
    import json

    import yaml

    from registry.errors import InvalidInput

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _loader())
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(f"{path} is neither YAML nor JSON: {reason}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InvalidInput(f"{path} holds no fields; write a policy as FIELD: VALUE")
    try:
        fields: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{path} has a value that JSON does not have: {error}") from error
    return fields


def _loader() -> "type[yaml.SafeLoader]":
    """Return a loader to which `1e-4` is a number, as in YAML 1.2; in YAML 1.1 it is a text."""
    import re

    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
        """Reads numbers with an exponent."""

    number = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader


def policy_text(body: "PolicyBody") -> str:
    """Return a policy as YAML that `read_policy` reads."""
    import yaml

    version = "the default" if body.number is None else f"version {body.number}"
    fields = yaml.safe_dump(body.policy.model_dump(mode="json"), sort_keys=False)
    return f"# Policy of family {body.family}, {version}; null: measured, not limited.\n{fields}"
