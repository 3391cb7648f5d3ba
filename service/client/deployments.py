"""The part of the client that serves mixes as models, and stops them."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from engine.serving.tables import DeploymentState
from registry.errors import Conflict, NotFound
from service.client.connection import Connection
from service.schemas.deployments import DeploymentBody
from service.schemas.mixes import MixBody

POLL_SECONDS = 0.5
STARTING = (DeploymentState.REQUESTED, DeploymentState.STARTING)
SERVING = (*STARTING, DeploymentState.READY, DeploymentState.ASLEEP)


class Deployments:
    """The part of the client about deployments."""

    _connection: Connection

    def deployments(self, *, model: str | None = None) -> Iterator[DeploymentBody]:
        """Yield all deployments, or those of one model name, newest first."""
        params = {} if model is None else {"model": model}
        return map(
            DeploymentBody.model_validate, self._connection.entries("/deployments", **params)
        )

    def previews(self) -> set[str]:
        """Return the mixes, as NAME@NUMBER, whose previews answer now."""
        return {
            body.ref
            for body in self.deployments()
            if body.preview and body.ref is not None and body.state is DeploymentState.READY
        }

    def deploy(
        self,
        mix: MixBody,
        *,
        model: str | None = None,
        pinned: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> DeploymentBody:
        """Serve a published mix under its own name, or as `model`. If `pinned`, it never sleeps.

        `options` of its engine are those of the name's present deployment if they are None. Raises
        Conflict when the mix is not published, InvalidInput with every option that does not fit.
        """
        if mix.artifact is None:
            raise Conflict(f"{mix.ref} is not published: it is {mix.state}")
        body: dict[str, Any] = {
            "artifact": mix.artifact,
            "model": model or mix.name,
            "pinned": pinned,
        }
        if options is not None:
            body["options"] = dict(options)
        return DeploymentBody.model_validate(self._connection.post("/deployments", body))

    def deployment_of(self, mix: MixBody) -> DeploymentBody:
        """Return the newest deployment of this version under the name of its mix.

        Raises NotFound when the version was never deployed under that name.
        """
        for body in self.deployments(model=mix.name):
            if body.artifact_id == mix.artifact:
                return body
        raise NotFound(f"{mix.ref} is not deployed as model {mix.name!r}")

    def undeploy(self, model: str) -> None:
        """Stop what serves a model name, or is about to. Raises NotFound when nothing does."""
        live = [body for body in self.deployments(model=model) if body.state in SERVING]
        if not live:
            raise NotFound(f"no model {model!r} is deployed")
        for body in live:
            self._connection.delete(f"/deployments/{body.id}")

    def wait_for_deployment(self, deployment: DeploymentBody) -> DeploymentBody:
        """Wait until this very deployment is ready or has ended; return it as it is then."""
        path = f"/deployments/{deployment.id}"
        while deployment.state in STARTING:
            time.sleep(POLL_SECONDS)
            deployment = DeploymentBody.model_validate(self._connection.get(path))
        return deployment
