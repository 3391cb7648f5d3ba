"""/docs: the documentation that `./nexusmix docs` builds. It needs no key and no network."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from service.ui.rendering import FOLDER, page

SITE = FOLDER.parent / "docs_site"

# The theme of the documentation puts its settings into inline scripts. The pages load nothing from
# other servers, and no form can send anything.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class DocsSite(StaticFiles):
    """Serves the built documentation, or a page that says how to build it."""

    def __init__(self, folder: Path = SITE) -> None:
        super().__init__(directory=folder, html=True, check_dir=False)
        self.index = folder / "index.html"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.index.is_file():
            await super().__call__(scope, receive, send)
        else:
            missing = page(Request(scope), "docs_missing.html", status=404, signed_in=False)
            await missing(scope, receive, send)

    async def get_response(self, path: str, scope: Scope) -> Response:
        # Also the page for addresses that do not exist, which Starlette answers by itself.
        response = await super().get_response(path, scope)
        response.headers["Content-Security-Policy"] = POLICY
        return response
