"""What is asked of a request before its body is read, and how much one key may do at a time.

`service.web.checked_routes` runs these in order: key and permission, body, rate.
"""

import functools
import inspect
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import Request
from fastapi.dependencies.models import Dependant
from starlette.concurrency import run_in_threadpool

from registry.errors import TooManyRequests

Dependency = TypeVar("Dependency", bound=Callable[[Request], Any])

MARK = "runs_before_body"
ADMITTED = "nexusmix.admitted"
# Keys whose rate is remembered; the one that was quiet longest is forgotten first.
MAX_KEYS = 10_000


def before_body(dependency: Dependency) -> Dependency:
    """Mark a dependency that asks for a key or a permission.

    It runs before the body of the request is read, and once for a request: where the route asks
    for it again, it gets the same result.
    """

    @functools.wraps(dependency)
    def once(request: Request) -> Any:
        known: dict[object, Any] = request.scope.setdefault(ADMITTED, {})
        if once not in known:
            known[once] = dependency(request)
        return known[once]

    @functools.wraps(dependency)
    async def once_async(request: Request) -> Any:
        known: dict[object, Any] = request.scope.setdefault(ADMITTED, {})
        if once_async not in known:
            known[once_async] = await dependency(request)
        return known[once_async]

    marked: Any = once_async if inspect.iscoroutinefunction(dependency) else once
    setattr(marked, MARK, True)
    return marked  # type: ignore[no-any-return]  # the same signature, as `wraps` says at run time


def asked_before_body(dependant: Dependant) -> list[Callable[[Request], Any]]:
    """Return the marked dependencies of a route, in their order."""
    found = [dependant.call] if getattr(dependant.call, MARK, False) else []
    for inner in dependant.dependencies:
        found += [call for call in asked_before_body(inner) if call not in found]
    return [call for call in found if call is not None]


async def admit(request: Request, asked: list[Callable[[Request], Any]]) -> None:
    """Run the marked dependencies of a route. Raises what they raise."""
    for dependency in asked:
        if inspect.iscoroutinefunction(dependency):
            await dependency(request)
        else:
            await run_in_threadpool(dependency, request)


def sender_of(request: Request) -> Hashable:
    """Return the id of the key that was admitted; None for all who need none."""
    admitted: dict[object, Any] = request.scope.get(ADMITTED, {})
    ids = (getattr(caller, "key_id", None) for caller in admitted.values())
    return next((key_id for key_id in ids if key_id is not None), None)


class Rate:
    """Counts requests of each sender: `per_second` on average, twice as many at once."""

    def __init__(self) -> None:
        # The time at which all requests so far would have come at the allowed rate.
        self._due: OrderedDict[Hashable, float] = OrderedDict()

    def count(self, sender: Hashable, *, per_second: float) -> None:
        """Count a request. Raises TooManyRequests."""
        now = time.monotonic()
        due = max(self._due.get(sender, now), now)
        if due - now > 2:
            raise TooManyRequests(f"more than {per_second:g} requests a second; send fewer")
        self._due[sender] = due + 1 / per_second
        self._due.move_to_end(sender)
        if len(self._due) > MAX_KEYS:
            self._due.popitem(last=False)


class Slots:
    """Counts what each sender does at the same time."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._held: Counter[Hashable] = Counter()

    @contextmanager
    def held(self, sender: Hashable, *, most: int) -> Iterator[None]:
        """Hold one of `most` slots of the sender. Raises TooManyRequests."""
        if self._held[sender] >= most:
            raise TooManyRequests(f"{most} {self._what} of this key run already; wait for one")
        self._held[sender] += 1
        try:
            yield
        finally:
            self._held[sender] -= 1
            if not self._held[sender]:
                del self._held[sender]
