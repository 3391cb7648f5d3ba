"""Work of one purpose has its own threads, and the same work is done once for all who wait."""

import asyncio
import threading

from service.web.threads import Shared, Threads
from tests.coroutines import result_of


def test_the_same_work_is_done_once_for_all() -> None:
    shared: Shared[int] = Shared(Threads("test", 2), seconds=0.01)
    calls: list[int] = []
    release = threading.Event()

    def work() -> int:
        calls.append(1)
        release.wait(10)
        return len(calls)

    async def ask() -> list[int]:
        waiting = [asyncio.create_task(shared.run("a", work)) for _ in range(50)]
        leaving = asyncio.create_task(shared.run("a", work))
        await shared.next_period()
        leaving.cancel()
        release.set()
        return await asyncio.gather(*waiting)

    assert result_of(ask()) == [1] * 50
    # Later, and in another event loop, it is done anew.
    assert result_of(shared.run("a", work)) == 2


def test_purposes_do_not_wait_for_each_other() -> None:
    busy, free = Threads("busy", 1), Threads("free", 1)
    release = threading.Event()

    async def ask() -> bool:
        waiting = asyncio.create_task(busy.run(lambda: release.wait(10)))
        await free.run(release.set)
        return await waiting

    assert result_of(ask())
