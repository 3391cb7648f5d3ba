"""The table of routes and scopes covers the app, and holds in it."""

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from registry.database import db
from service import keys, scopes
from service.scopes import ALL_SCOPES, MEANINGS, ROUTES, Scope

NUMBERS = {"number", "key_id", "deployment_id"}
READERS = {"authenticate_reader"}
CALLERS = {"authenticate", "authenticate_application", "visitor"}


def routes(app: FastAPI) -> Iterator[tuple[str, str, APIRoute | None]]:
    """Yield method and path of every route; a mount is read only."""
    for route in app.routes:
        if isinstance(route, Mount):
            yield "GET", route.path, None
        elif isinstance(route, APIRoute):
            yield from ((method, route.path, route) for method in route.methods)
        elif isinstance(route, Route):
            yield from ((m, route.path, None) for m in (route.methods or ()) if m != "HEAD")


def address_of(path: str) -> str:
    """Fill the parameters of a path with a number or name that does not exist."""
    return re.sub(r"\{(\w+)\}", lambda m: "99" if m[1] in NUMBERS else "nobody", path)


def calls(dependant: Dependant) -> set[str]:
    """Return the names of all functions that a route depends on, at any depth."""
    names = {getattr(dependant.call, "__name__", "")}
    return names.union(*map(calls, dependant.dependencies))


def test_every_route_has_a_row_and_every_row_a_route(app: FastAPI) -> None:
    assert {(method, path) for method, path, _ in routes(app)} == set(ROUTES)


def test_every_route_checks_its_scope(app: FastAPI) -> None:
    """Only what reads may do without a key, where the settings allow it."""
    for method, path, route in routes(app):
        asks = set() if route is None else calls(route.dependant) & (READERS | CALLERS)
        needed = ROUTES[method, path]
        assert bool(asks) is (needed is not None), (method, path)
        if needed is not Scope.READ:
            assert not asks & READERS, (method, path)


def test_what_changes_something_asks_for_more_than_reading(app: FastAPI) -> None:
    only_read = ("/experts:suggest", ":plan", "/plan", "/suggest", "/sign-in-links")
    for method, path, _ in routes(app):
        if method not in ("GET", "HEAD") and ROUTES[method, path] in (None, Scope.READ):
            assert path in ("/login", "/logout") or path.endswith(only_read), (method, path)


def test_a_route_without_a_row_is_for_admins() -> None:
    assert scopes.needed("GET", "/forgotten") is Scope.ADMIN


def test_every_scope_is_explained() -> None:
    assert set(MEANINGS) == ALL_SCOPES
    assert scopes.listing(["admin", "read"]) == "read, admin"


@pytest.mark.parametrize("scope", Scope)
def test_a_key_opens_the_routes_of_its_scope_only(
    app: FastAPI, anonymous: TestClient, scope: Scope
) -> None:
    """Every route is asked without a body and for nothing that exists, so that nothing happens."""
    with db.transaction() as session:
        key = keys.create_key(session, name="narrow", scopes=[scope])
    headers = {"Authorization": f"Bearer {key}"}
    for method, path, route in routes(app):
        if route is None or path.endswith(("/events", "/live")):
            continue
        answer = anonymous.request(
            method, address_of(path), headers=headers, follow_redirects=False
        )
        allowed = ROUTES[method, path] in (None, scope)
        assert (answer.status_code != 403) is allowed, (method, path, answer.text)
        if not allowed and path.startswith("/api/v1") and method != "HEAD":
            problem = answer.json()
            assert problem["code"] == "forbidden"
            assert f"needs the scope {ROUTES[method, path]}" in problem["detail"]
            assert f"has {scope}" in problem["detail"]


def test_without_a_key_every_route_but_the_open_ones_is_closed(
    app: FastAPI, anonymous: TestClient
) -> None:
    for method, path, route in routes(app):
        if route is None or ROUTES[method, path] is None:
            continue
        answer = anonymous.request(method, address_of(path), follow_redirects=False)
        expected = 401 if path.startswith(("/api", "/v1", "/metrics")) else 303
        assert answer.status_code == expected, (method, path, answer.text)
