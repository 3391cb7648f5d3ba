"""Commands that need the packages of the server, which the light install leaves out."""

from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

from registry.errors import Unavailable

# One of each part: network, engine, database, jobs.
PACKAGES = ("torch", "vllm", "psycopg", "dbos")

P = ParamSpec("P")
T = TypeVar("T")


def needs_server(command: Callable[P, T]) -> Callable[P, T]:
    """Mark a command: where only the client is installed it ends with one sentence.

    Its `--help` works there too. The command raises Unavailable with what to install.
    """

    @wraps(command)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        missing = [name for name in PACKAGES if find_spec(name) is None]
        if missing:
            raise Unavailable(
                f"{command.__name__.replace('_', '-')} needs packages of the server"
                f" ({', '.join(missing)}), which are not installed: install nexusmix with its extra"
                " `run`, or `gpu` for NVIDIA cards, as in `pip install '.[run]'`"
            )
        return command(*args, **kwargs)

    return checked
