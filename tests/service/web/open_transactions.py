"""Watches that the app has no transaction open while it reads or writes bytes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from registry.blobs.blobs import LocalBlobs

METHODS = ("size", "keep", "put", "local_path", "stored", "set_aside", "delete_aside", "discard")


@contextmanager
def forbidden_with_bytes() -> Iterator[None]:
    """Fail at the end if a thread of the app used the store while it held a connection.

    The main thread is the test's, which prepares rows and blobs as it likes.
    """
    held: set[int] = set()
    found: set[str] = set()

    def checkout(connection: DBAPIConnection, entry: ConnectionPoolEntry, proxy: object) -> None:
        if not _is_of_the_test():
            held.add(id(connection))

    def checkin(connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        held.discard(id(connection))

    def watched(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            if held and not _is_of_the_test():
                found.add(method.__name__)
            return method(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in METHODS:
            patch.setattr(LocalBlobs, name, watched(getattr(LocalBlobs, name)))
        event.listen(Pool, "checkout", checkout)
        event.listen(Pool, "checkin", checkin)
        try:
            yield
        finally:
            event.remove(Pool, "checkout", checkout)
            event.remove(Pool, "checkin", checkin)
    assert not found, f"a transaction was open during {', '.join(sorted(found))} of the store"


def _is_of_the_test() -> bool:
    return threading.current_thread() is threading.main_thread()
