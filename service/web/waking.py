"""Requests for models that are asleep wait until those are awake."""

from time import monotonic

import anyio

from engine.serving.model_routes import Route
from engine.serving.sleeping import Asleep
from registry.errors import TimedOut
from registry.settings import settings
from service.web.remembered import Remembered

POLL_SECONDS = 0.25


class Waking:
    """Finds routes to models, and has a bounded number of requests wait for them."""

    def __init__(self, routes: Remembered[str, Route]) -> None:
        self._routes = routes
        self._num_waiting = 0

    async def route(self, model: str) -> Route:
        """Return the route to a model; if it is asleep, once its engine answers.

        Raises what `engine.serving.model_routes.resolve` raises, Unavailable when too many requests
        wait already, and TimedOut after `wake_seconds` of the settings.
        """
        try:
            return await self._routes.get(model)
        except Asleep:
            # Reading the route has woken it.
            if self._num_waiting >= settings().max_waiting_requests:
                raise
        self._num_waiting += 1
        try:
            return await self._wait(model)
        finally:
            self._num_waiting -= 1

    async def _wait(self, model: str) -> Route:
        seconds = settings().wake_seconds
        give_up_at = monotonic() + seconds
        while monotonic() < give_up_at:
            await anyio.sleep(POLL_SECONDS)
            try:
                return await self._routes.get(model)
            except Asleep:
                continue
        raise TimedOut(
            f"{model!r} was asleep, and did not wake up within {seconds:g} seconds; try again later"
        )
