"""Make, list and revoke API keys."""

from typing import Annotated

import typer

from service.scopes import MEANINGS, Scope

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")

SCOPES = "; ".join(f"{scope}: {meaning}" for scope, meaning in MEANINGS.items())


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who or what will use the key.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            help=f"What the key may do; repeat it for more. {SCOPES}. Default: read and infer."
        ),
    ] = None,
    days: Annotated[
        float | None,
        typer.Option(min=0.001, max=36_500, help="Days until the key ends. Default: never."),
    ] = None,
) -> None:
    """Make a key and print it. It is stored nowhere and never shown again."""
    from datetime import UTC, datetime, timedelta

    from service.client import local

    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with local.key_client() as client:
        made = client.create(name, scopes=scope or [Scope.READ, Scope.INFER], expires_at=expires_at)
    typer.echo(made.key)


@app.command(name="list")
def list_all() -> None:
    """List all keys, newest first."""
    from service import scopes
    from service.client import local
    from service.terminal.console import moment, print_rows

    with local.key_client() as client:
        found = client.find_all()
    rows = [
        (
            str(key.id),
            key.name,
            key.prefix + "...",
            scopes.listing(key.scopes),
            "never" if key.last_used_at is None else moment(key.last_used_at),
            "never" if key.expires_at is None else moment(key.expires_at),
            "" if key.revoked_at is None else moment(key.revoked_at),
        )
        for key in found
    ]
    print_rows(("id", "name", "key", "scopes", "last used", "expires", "revoked"), rows)


@app.command()
def revoke(
    key_id: Annotated[int, typer.Argument(metavar="ID", help="Id of the key, from `keys list`.")],
) -> None:
    """Revoke a key and end its sessions, within a second."""
    from service.client import local

    with local.key_client() as client:
        revoked = client.revoke(key_id)
    typer.echo(f"key {revoked.id} ({revoked.name}) is revoked")
