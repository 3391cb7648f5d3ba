"""Fetch a model repository of a Hub: huggingface.co, or one that answers alike.

The cache of the library is not used: it drops what has arrived of a file when a download ends
early. Its other way of transfer, Xet, would pass by the checks of a server.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from registry.checkpoints.file_names import TENSORS_INDEX
from registry.checkpoints.manifests import Origin
from registry.disk import check_room
from registry.errors import InvalidInput, Unavailable
from registry.fetching import fetched, hub_files, remote_file, remote_header
from registry.fetching.addresses import HubAddress
from registry.fetching.fetched import CheckHeaders, Fetched, OnProgress
from registry.fetching.hub_files import Choice, RemoteFile
from registry.fetching.remote_file import Expected
from registry.ingest.checkpoint_folder import DOCUMENTS
from registry.ingest.shards import names_in_index

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

COMMIT = re.compile(r"[0-9a-f]{40}")
API_SECONDS = 30.0
OWN_TOKEN = (
    "ask for access on its page if it is gated, and set HF_TOKEN to a token that may read it"
)


@dataclass(frozen=True, kw_only=True)
class Hub:
    """A Hub at `endpoint`, an address without a slash at its end.

    `token` may read private repositories: None is the token of the user of this machine, as the
    library finds it, False is none. `token_hint` says how to give one. No file may have more than
    `max_bytes`; None is no limit.
    """

    endpoint: str
    token: str | bool | None = None
    token_hint: str = OWN_TOKEN
    max_bytes: int | None = None

    def fetch(
        self,
        address: HubAddress,
        cache: Path,
        *,
        needs_documents: bool = False,
        check: CheckHeaders | None = None,
        on_progress: OnProgress = lambda *_: None,
    ) -> Fetched:
        """Fetch what an import needs of a repository, to a folder of its own below `cache`.

        What is there is not fetched again; a file that is there in part goes on. With
        `needs_documents`, a repository without sample documents is refused. What `check` refuses
        by its headers is refused before weights are fetched, unless the Hub sends whole files only.
        Raises NotFound for repository and revision, Forbidden where a token is needed, InvalidInput
        and TooLarge for what cannot be imported, Unavailable, OutOfSpace and InvalidCheckpoint.
        """
        with remote_file.quietly():
            commit, files = self._look(address)
            choice = hub_files.choose(address, files)
            if needs_documents and not choice.has(DOCUMENTS):
                raise InvalidInput(f"{address} has no {DOCUMENTS}: {fetched.NAME_DOCUMENTS}")
            folder = cache / "hub" / address.repo.replace("/", "--") / commit
            for file in choice.beside:
                self._fetch_file(address, commit, file, folder)
            if choice.has(TENSORS_INDEX):
                choice = choice.named_in(names_in_index(folder / TENSORS_INDEX), address)
            self._fetch_weights(address, commit, choice, folder, check, on_progress)
        path = folder if choice.file is None else folder / choice.file
        return Fetched(path=path, origin=Origin(address=str(address), commit_hash=commit))

    def _look(self, address: HubAddress) -> tuple[str, list[RemoteFile]]:
        """Return the commit that the revision means, and its files."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint, token=self.token, library_name=remote_file.NAME)
        with remote_file.telling_errors(str(address), hint=self.token_hint):
            try:
                info = api.model_info(
                    address.repo,
                    revision=address.revision,
                    files_metadata=True,
                    timeout=API_SECONDS,
                )
                commit, files = info.sha or "", [_remote(file) for file in info.siblings or ()]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise Unavailable(f"{self.endpoint} does not answer as a Hub: {error}") from error
        if not COMMIT.fullmatch(commit):
            raise Unavailable(f"{self.endpoint} does not answer as a Hub: it names no commit")
        return commit, files

    def _fetch_weights(
        self,
        address: HubAddress,
        commit: str,
        choice: Choice,
        folder: Path,
        check: CheckHeaders | None,
        on_progress: OnProgress,
    ) -> None:
        for file in choice.weights:
            remote_file.check_size(file.expected.size, what=file.name, max_bytes=self.max_bytes)
        absent = [file for file in choice.weights if not (folder / file.name).exists()]
        check_room(folder, _num_bytes(absent) - _arrived(absent, folder))
        if absent and check is not None:
            self._check_headers(address, commit, choice, folder, check)
        num_bytes = _num_bytes(choice.weights)
        reached = num_bytes - _num_bytes(absent) + _arrived(absent, folder)

        def on_bytes(count: int) -> None:
            nonlocal reached
            reached += count
            on_progress(reached, num_bytes)

        for file in absent:
            self._fetch_file(address, commit, file, folder, on_bytes=on_bytes)

    def _check_headers(
        self, address: HubAddress, commit: str, choice: Choice, folder: Path, check: CheckHeaders
    ) -> None:
        """Check a folder with the same files; weights that are absent have only their headers."""
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=remote_header.PREFIX) as name:
            for file in (*choice.beside, *choice.weights):
                path = Path(name, file.name)
                if (folder / file.name).exists():
                    path.symlink_to((folder / file.name).absolute())
                elif not remote_header.fetch(
                    self._url(address, commit, file),
                    path,
                    size=file.expected.size,
                    what=f"{file.name} of {address}",
                    headers=self._headers(),
                    hint=self.token_hint,
                ):
                    return
            check(Path(name, choice.file or ""))

    def _fetch_file(
        self,
        address: HubAddress,
        commit: str,
        file: RemoteFile,
        folder: Path,
        *,
        on_bytes: remote_file.OnBytes = lambda _: None,
    ) -> None:
        remote_file.fetch(
            self._url(address, commit, file),
            folder / file.name,
            what=f"{file.name} of {address}",
            headers=self._headers(),
            expected=file.expected,
            max_bytes=self.max_bytes,
            hint=self.token_hint,
            on_bytes=on_bytes,
        )

    def _url(self, address: HubAddress, commit: str, file: RemoteFile) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(address.repo, file.name, revision=commit, endpoint=self.endpoint)

    def _headers(self) -> dict[str, str]:
        from huggingface_hub import get_token

        token = get_token() if self.token is None else self.token
        return remote_file.HEADERS | ({"Authorization": f"Bearer {token}"} if token else {})


def _remote(sibling: "RepoSibling") -> RemoteFile:
    if sibling.lfs is None:
        expected = Expected(size=sibling.size, git_sha1=sibling.blob_id)
    else:
        # The name that git has is then of a pointer to the file.
        expected = Expected(size=sibling.lfs.size, sha256=sibling.lfs.sha256)
    return RemoteFile(sibling.rfilename, expected)


def _num_bytes(files: Sequence[RemoteFile]) -> int:
    return sum(file.expected.size or 0 for file in files)


def _arrived(files: Sequence[RemoteFile], folder: Path) -> int:
    """Return the bytes of files that have arrived in part."""
    return sum(remote_file.arrived(folder / file.name) for file in files)
