"""Creates the mix that a request asks for, and answers with it."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from pydantic import BaseModel
from sqlalchemy import orm

from assembler.mixes import mixes
from assembler.mixes.new_mix import MixSpec, ResolvedRequest
from registry.blobs.blobs import BlobStore
from service.keys import Caller
from service.schemas.mixes import MixBody
from service.scopes import Scope
from service.web.auth import Writer, require
from service.web.deps import Blobs, Session
from service.web.idempotency import OncePerKey, Repeatable


@dataclass(frozen=True)
class Requester:
    """What a route needs to create a mix."""

    request: Request
    response: Response
    session: orm.Session
    blobs: BlobStore
    repeatable: Repeatable
    caller: Caller

    def create(self, body: BaseModel, spec: MixSpec, *, deploy: bool, preview: bool) -> MixBody:
        """Create a queued mix, or return the one that the same request created before.

        `body` is compared to find a repeated request. The answer's `Location` leads to the mix.
        Raises InvalidInput with every problem of `spec`, and Forbidden if the mix shall be served
        and the key may not deploy.
        """
        if deploy:
            require(self.caller, Scope.DEPLOY)
        content = body.model_dump(mode="json", exclude_unset=True)
        answer = self.repeatable.earlier(self.session, body=content)
        if answer is None:
            resolved = spec.read(self.session, self.blobs)
            answer = self.repeatable.once(
                self.session,
                body=content,
                status=202,
                make=lambda: self._create(resolved, deploy=deploy, preview=preview),
            )
        mix = MixBody.model_validate(answer)
        # The request path can be longer: a revision is requested below the base mix.
        collection = "".join(self.request.url.path.partition("/mixes")[:2])
        self.response.headers["Location"] = f"{collection}/{mix.name}/versions/{mix.version}"
        return mix

    def _create(self, resolved: ResolvedRequest, *, deploy: bool, preview: bool) -> dict[str, Any]:
        version = mixes.create(self.session, resolved, deploy=deploy, preview=preview)
        return MixBody.of(version).model_dump(mode="json")


def _requester(
    request: Request,
    response: Response,
    session: Session,
    blobs: Blobs,
    repeatable: OncePerKey,
    caller: Writer,
) -> Requester:
    return Requester(request, response, session, blobs, repeatable, caller)


MixRequester = Annotated[Requester, Depends(_requester)]
