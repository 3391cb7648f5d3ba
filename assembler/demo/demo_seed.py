"""Describe the seed of a demo: a pretrained model that Python packages carry as one GGUF file."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from registry.errors import Unavailable


@dataclass(frozen=True, kw_only=True)
class DemoSeed:
    """A pretrained model in Python packages, which the `extra` of nexusmix installs.

    The packages only deliver bytes. They are never imported: their code may need further packages.
    `parts` are `MODULE/PATH` of files that make one GGUF file, one after the other, with the
    SHA-256 `digest`. The family of the demo has the same `name`.
    """

    name: str
    license: str
    provenance: str
    extra: str
    parts: tuple[str, ...]
    digest: str
    # Of the experts' training: the highest that does not harm in its first steps.
    learning_rate: float
    # What a user has to accept before, in words; nothing for licenses that ask for no consent.
    terms: str = ""
    # Behind the names of the demo's mix and experts, which belong to one family each.
    suffix: str = ""

    def files(self) -> list[Path]:
        """Return the parts in order. Raises Unavailable with the packages that are not installed.

        A package without its part counts as not installed.
        """
        found = {part: next(_places(part), None) for part in self.parts}
        missing = sorted({_package(part) for part, path in found.items() if path is None})
        if missing:
            accepting = " --accept-license" if self.terms else ""
            raise Unavailable(
                f"the seed {self.name} comes in packages that are not installed"
                f" ({', '.join(missing)}): install nexusmix with its extra `{self.extra}`, which"
                f" `./nexusmix demo --family {self.name}{accepting}` does in a checkout"
            )
        return [path for path in found.values() if path is not None]


def _places(part: str) -> Iterator[Path]:
    module, _, path = part.partition("/")
    spec = find_spec(module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (place := Path(folder) / path).is_file():
            yield place


def _package(part: str) -> str:
    return part.partition("/")[0].replace("_", "-")
