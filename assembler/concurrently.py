"""The same work on many tensors, a few at a time."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> list[Result]:
    """`function` of every item, in their order.

    NumPy, hashing and the disk leave other threads the interpreter: while one result is on its way
    to the disk, the next is computed. Raises what the first failing call raised, and begins no
    others then.
    """
    with ThreadPoolExecutor(workers) as pool:
        try:
            return list(pool.map(function, items))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
