"""What a key may do, and the scope that each route asks for.

One table, which `service.web.auth` reads at every request. A route without a row asks for ADMIN.
"""

from collections.abc import Iterable
from enum import StrEnum


class Scope(StrEnum):
    """One thing that a key may do. None of them includes another."""

    READ = "read"
    INFER = "infer"
    PUBLISH = "publish"
    DEPLOY = "deploy"
    ADMIN = "admin"


ALL_SCOPES = frozenset(Scope)
MEANINGS = {
    Scope.READ: "look at everything but documents, download, plan",
    Scope.INFER: "ask served models",
    Scope.PUBLISH: "register families and experts, request, cancel and retry mixes",
    Scope.DEPLOY: "serve models and stop them",
    Scope.ADMIN: "make and revoke keys, change policies, override gates, look for needless tensors",
}

_MIX = "/api/v1/mixes/{name}/versions/{number}"
_EXPERT = "/api/v1/experts/{name}/versions"
_FAMILY = "/api/v1/families"

# Method and path -> scope; None: nobody needs a key.
ROUTES: dict[tuple[str, str], Scope | None] = {
    ("GET", "/health"): None,
    ("GET", "/api/v1/openapi.json"): None,
    ("GET", "/static"): None,
    ("GET", "/docs"): None,
    ("GET", "/favicon.ico"): None,
    ("GET", "/login"): None,
    ("POST", "/login"): None,
    ("POST", "/logout"): None,
    ("GET", "/sign-in"): None,
    ("GET", "/metrics"): Scope.READ,
    ("GET", "/metrics/engines"): Scope.READ,
    ("GET", "/v1/models"): Scope.INFER,
    ("GET", "/v1/models/{model}"): Scope.INFER,
    ("POST", "/v1/completions"): Scope.INFER,
    ("POST", "/v1/embeddings"): Scope.INFER,
    ("POST", "/v1/responses"): Scope.INFER,
    ("POST", "/v1/chat/completions"): Scope.INFER,
    ("GET", _FAMILY): Scope.READ,
    ("POST", _FAMILY): Scope.PUBLISH,
    ("GET", f"{_FAMILY}/{{name}}"): Scope.READ,
    ("GET", f"{_FAMILY}/{{name}}/seed"): Scope.READ,
    ("GET", f"{_FAMILY}/{{name}}/files"): Scope.READ,
    ("GET", f"{_FAMILY}/{{name}}/files/{{file}}"): Scope.READ,
    ("HEAD", f"{_FAMILY}/{{name}}/files/{{file}}"): Scope.READ,
    ("POST", f"{_FAMILY}/{{name}}/complete"): Scope.PUBLISH,
    ("POST", f"{_FAMILY}/{{name}}/retry"): Scope.PUBLISH,
    ("DELETE", f"{_FAMILY}/{{name}}"): Scope.PUBLISH,
    ("POST", f"{_FAMILY}/{{name}}/projections/{{number}}/retry"): Scope.PUBLISH,
    ("GET", f"{_FAMILY}/{{name}}/projections"): Scope.READ,
    ("POST", f"{_FAMILY}/{{name}}/projections"): Scope.PUBLISH,
    ("GET", f"{_FAMILY}/{{name}}/projections/{{number}}"): Scope.READ,
    ("GET", f"{_FAMILY}/{{name}}/policy"): Scope.READ,
    ("PUT", f"{_FAMILY}/{{name}}/policy"): Scope.ADMIN,
    ("GET", f"{_FAMILY}/{{name}}/policies"): Scope.READ,
    ("GET", "/api/v1/experts"): Scope.READ,
    ("POST", "/api/v1/experts:suggest"): Scope.READ,
    ("GET", "/api/v1/experts/{name}"): Scope.READ,
    ("POST", _EXPERT): Scope.PUBLISH,
    ("POST", "/api/v1/experts/{name}/imports"): Scope.PUBLISH,
    ("GET", f"{_EXPERT}/{{number}}/manifest"): Scope.READ,
    ("GET", f"{_EXPERT}/{{number}}/adapter"): Scope.READ,
    ("GET", f"{_EXPERT}/{{number}}/adapter/{{file}}"): Scope.READ,
    ("GET", f"{_EXPERT}/{{number}}"): Scope.READ,
    ("POST", f"{_EXPERT}/{{number}}/complete"): Scope.PUBLISH,
    ("POST", f"{_EXPERT}/{{number}}/retry"): Scope.PUBLISH,
    ("DELETE", f"{_EXPERT}/{{number}}/documents"): Scope.PUBLISH,
    ("GET", "/api/v1/workers"): Scope.READ,
    ("GET", f"{_EXPERT}/{{number}}/files"): Scope.READ,
    ("GET", f"{_EXPERT}/{{number}}/files/{{file}}"): Scope.READ,
    ("HEAD", f"{_EXPERT}/{{number}}/files/{{file}}"): Scope.READ,
    ("HEAD", "/api/v1/blobs/{digest}"): Scope.PUBLISH,
    ("PUT", "/api/v1/blobs/{digest}"): Scope.PUBLISH,
    ("GET", "/api/v1/mixes"): Scope.READ,
    ("POST", "/api/v1/mixes"): Scope.PUBLISH,
    ("POST", "/api/v1/mixes:plan"): Scope.READ,
    ("GET", "/api/v1/mixes/{name}"): Scope.READ,
    ("GET", _MIX): Scope.READ,
    ("POST", f"{_MIX}/cancel"): Scope.PUBLISH,
    ("POST", f"{_MIX}/retry"): Scope.PUBLISH,
    ("POST", f"{_MIX}/override"): Scope.ADMIN,
    ("GET", f"{_MIX}/override"): Scope.READ,
    ("GET", f"{_MIX}/events"): Scope.READ,
    ("GET", f"{_MIX}/gate-report"): Scope.READ,
    ("GET", f"{_MIX}/gate-report.html"): Scope.READ,
    ("GET", f"{_MIX}/compression"): Scope.READ,
    ("GET", f"{_MIX}/provenance"): Scope.READ,
    ("GET", f"{_MIX}/attestation"): Scope.READ,
    ("POST", f"{_MIX}/extend"): Scope.PUBLISH,
    ("POST", f"{_MIX}/remove"): Scope.PUBLISH,
    ("POST", f"{_MIX}/replace"): Scope.PUBLISH,
    ("POST", f"{_MIX}/extend:plan"): Scope.READ,
    ("POST", f"{_MIX}/remove:plan"): Scope.READ,
    ("POST", f"{_MIX}/replace:plan"): Scope.READ,
    ("GET", f"{_MIX}/files"): Scope.READ,
    ("GET", f"{_MIX}/files/{{file}}"): Scope.READ,
    ("HEAD", f"{_MIX}/files/{{file}}"): Scope.READ,
    ("GET", "/api/v1/presets"): Scope.READ,
    ("GET", "/api/v1/deployments"): Scope.READ,
    ("POST", "/api/v1/deployments"): Scope.DEPLOY,
    ("GET", "/api/v1/deployments/{deployment_id}"): Scope.READ,
    ("PATCH", "/api/v1/deployments/{deployment_id}"): Scope.DEPLOY,
    ("DELETE", "/api/v1/deployments/{deployment_id}"): Scope.DEPLOY,
    ("GET", "/api/v1/schemas/{name}"): Scope.READ,
    ("GET", "/api/v1/signing-key"): Scope.READ,
    ("GET", "/api/v1/keys"): Scope.ADMIN,
    ("POST", "/api/v1/keys"): Scope.ADMIN,
    ("DELETE", "/api/v1/keys/{key_id}"): Scope.ADMIN,
    ("POST", "/api/v1/sign-in-links"): Scope.READ,
    ("GET", "/"): Scope.READ,
    ("GET", "/experts"): Scope.READ,
    ("GET", "/experts/{name}"): Scope.READ,
    ("POST", "/experts/{name}/versions/{number}/retry"): Scope.PUBLISH,
    ("GET", "/families"): Scope.READ,
    ("POST", "/families/{name}/retry"): Scope.PUBLISH,
    ("POST", "/families/{name}/projections"): Scope.PUBLISH,
    ("GET", "/playground"): Scope.READ,
    ("GET", "/store"): Scope.READ,
    ("GET", "/store/needless"): Scope.ADMIN,
    ("GET", "/mixes"): Scope.READ,
    ("POST", "/mixes"): Scope.PUBLISH,
    ("GET", "/mixes/new"): Scope.READ,
    ("GET", "/mixes/preset"): Scope.READ,
    ("GET", "/mixes/choices"): Scope.READ,
    ("POST", "/mixes/suggest"): Scope.READ,
    ("POST", "/mixes/plan"): Scope.READ,
    ("GET", "/mixes/{ref}"): Scope.READ,
    ("GET", "/mixes/{ref}/live"): Scope.READ,
    ("POST", "/mixes/{ref}/plan"): Scope.READ,
    ("POST", "/mixes/{ref}/revise"): Scope.PUBLISH,
    ("POST", "/mixes/{ref}/cancel"): Scope.PUBLISH,
    ("POST", "/mixes/{ref}/retry"): Scope.PUBLISH,
    ("POST", "/mixes/{ref}/deploy"): Scope.DEPLOY,
    ("POST", "/mixes/{ref}/override"): Scope.ADMIN,
}


def needed(method: str, path: str) -> Scope | None:
    """Return the scope that a route asks for; `path` is the one of the route, with parameters."""
    return ROUTES.get((method, path), Scope.ADMIN)


def listing(scopes: Iterable[str]) -> str:
    """Return scopes as text, in the order of the table."""
    held = set(scopes)
    return ", ".join(scope for scope in Scope if scope in held)
