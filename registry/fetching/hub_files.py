"""Choose the files of a Hub's repository that an import needs: weights, config, tokenizer."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from registry.checkpoints.admission import (
    COMPUTED_FILES,
    FILE_SUFFIXES,
    LEGAL_FILES,
    PICKLE_SUFFIXES,
)
from registry.checkpoints.file_names import (
    ADAPTER_CONFIG,
    ADAPTER_TENSORS,
    CONFIG,
    TENSORS,
    TENSORS_INDEX,
)
from registry.errors import InvalidInput
from registry.fetching.addresses import HubAddress
from registry.fetching.remote_file import NOTHING, Expected
from registry.ingest import gguf_file
from registry.ingest.checkpoint_folder import DOCUMENTS
from registry.ingest.shards import CONSOLIDATED

SAFETENSORS_SUFFIX = ".safetensors"
# Names that a sentence shows.
MAX_NAMED = 4


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, and what the Hub tells of it."""

    name: str
    expected: Expected = NOTHING


@dataclass(frozen=True)
class Choice:
    """The files that an import needs: weights, and the small ones beside them.

    A GGUF file is needed alone.
    """

    weights: list[RemoteFile]
    beside: list[RemoteFile]

    @property
    def file(self) -> str | None:
        """The name of the GGUF file; None for a folder."""
        name = self.weights[0].name
        return name if name.endswith(gguf_file.SUFFIX) else None

    def has(self, name: str) -> bool:
        """Tell whether a file of this name lies beside the weights."""
        return any(file.name == name for file in self.beside)

    def named_in(self, index: Iterable[str], address: HubAddress) -> "Choice":
        """Return the same without weights that the index of the shards does not name.

        Raises InvalidInput if the repository has not all that it names.
        """
        known = {file.name: file for file in self.weights}
        names = sorted(index)
        if missing := [name for name in names if name not in known]:
            raise InvalidInput(
                f"{address} has not all shards that its {TENSORS_INDEX} names: {_listing(missing)}"
                " are missing"
            )
        return Choice([known[name] for name in names], self.beside)


def choose(address: HubAddress, files: Iterable[RemoteFile]) -> Choice:
    """Return the files that an import needs; those in folders of the repository are not read.

    Raises InvalidInput for a repository without weights, with pickled weights only, or with several
    GGUF files where the address names none of them.
    """
    known = {file.name: file for file in files if _is_plain(file.name)}
    weights = [] if address.file is not None else _weights(known)
    if weights:
        return Choice([known[name] for name in weights], _beside(known))
    return Choice([known[_gguf(address, known)]], [])


def _weights(known: dict[str, RemoteFile]) -> list[str]:
    """Return the names of all safetensors that may be of the model, or of the adapter."""
    if TENSORS in known:
        return [TENSORS]
    names = sorted(name for name in known if name.endswith(SAFETENSORS_SUFFIX))
    weights = [
        name for name in names if name != ADAPTER_TENSORS and not name.startswith(CONSOLIDATED)
    ]
    if weights or ADAPTER_TENSORS not in known or ADAPTER_CONFIG not in known:
        return weights
    return [ADAPTER_TENSORS]


def _beside(known: dict[str, RemoteFile]) -> list[RemoteFile]:
    wanted = {CONFIG, TENSORS_INDEX, ADAPTER_CONFIG, DOCUMENTS, *LEGAL_FILES}
    return [
        file
        for name, file in sorted(known.items())
        if name in wanted
        or (PurePosixPath(name).suffix in FILE_SUFFIXES and name not in COMPUTED_FILES)
    ]


def _gguf(address: HubAddress, known: dict[str, RemoteFile]) -> str:
    """Return the name of the GGUF file that is meant. Raises InvalidInput if nobody can tell."""
    found = sorted(name for name in known if name.endswith(gguf_file.SUFFIX))
    if address.file is not None:
        if address.file in found:
            return address.file
        have = f"it has {_listing(found)}" if found else "it has no GGUF file"
        raise InvalidInput(f"{address} has no such file: {have}")
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidInput(
            f"{address} has {len(found)} GGUF files ({_listing(found)}): name one of them, as in"
            f" {address}:{found[0]}"
        )
    pickles = sorted(name for name in known if PurePosixPath(name).suffix in PICKLE_SUFFIXES)
    if pickles:
        raise InvalidInput(
            f"{address} has its weights in {_listing(pickles)} only, which can run code: ask its"
            " owner for safetensors"
        )
    raise InvalidInput(f"{address} has no weights: neither *.safetensors nor *{gguf_file.SUFFIX}")


def _is_plain(name: str) -> bool:
    """Tell whether a name is one in the first folder, and not hidden."""
    return name == PurePosixPath(name).name and not name.startswith(".") and "\\" not in name


def _listing(names: list[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")
