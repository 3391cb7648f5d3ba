"""One vLLM server for one checkpoint: start it, wait for it, query it, stop it."""

import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx

from engine.divergence.server_runner import ServerRunner
from engine.launch import launchers
from engine.launch.adopted_process import Identity
from engine.launch.launcher import SOCKET, Launcher, Process, Resources
from engine.vllm_build import is_cpu_build
from engine.vllm_plugin.model_folder import materialize
from engine.vllm_server import endpoints, engine_command, engine_environment
from engine.vllm_server.engine_options import DEFAULT, EngineOptions
from registry.blobs.blobs import BlobStore
from registry.checkpoints.manifests import Manifest
from registry.disk import check_room, refusing_full_disk
from registry.errors import EngineFailed, TimedOut, Unavailable
from registry.settings import settings

WARM_UP_SECONDS = 60.0
START_SECONDS = 300.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.1
# `python -m MODULE` before the options of a server.
ENTRY_WORDS = 3
TAIL_BYTES = 4096


@dataclass(frozen=True)
class Server:
    """A vLLM process that runs or starts; `model` is the first model name in its API."""

    process: Process
    model: str
    log_path: Path

    @property
    def address(self) -> str:
        """Where the server listens, see `endpoints`. Raises httpx.ConnectError before its start."""
        if self.process.address is None:
            raise httpx.ConnectError("the server is not started yet")
        return self.process.address

    def runner(self) -> ServerRunner:
        """Return the model for comparisons."""
        return ServerRunner(
            f"{endpoints.url(self.address)}/v1",
            self.model,
            key=endpoints.find_key(),
            socket=endpoints.socket_path(self.address),
        )

    def is_ready(self) -> bool:
        """Return whether the server answers.

        Raises EngineFailed, with the end of the server's log, when its process has ended.
        """
        status = self.process.poll()
        if status is not None:
            raise EngineFailed(f"the vLLM server ended with status {status}:\n{self.log_tail()}")
        try:
            return self.get("/health").is_success
        except httpx.TransportError:
            return False

    def wait_ready(self, timeout: float = START_SECONDS) -> None:
        """Wait until the server answers; warm it up. Raises EngineFailed and TimedOut."""
        give_up_at = monotonic() + timeout
        while not self.is_ready():
            if monotonic() > give_up_at:
                message = f"the vLLM server is not ready after {timeout:.0f} s"
                raise EngineFailed(f"{message}:\n{self.log_tail()}")
            sleep(POLL_SECONDS)
        self.warm_up()

    def warm_up(self) -> None:
        """Send a small request, so that no later one waits.

        Raises TimedOut, as on a machine with too much work, and EngineFailed.
        """
        body = {"model": self.model, "prompt": [[0, 0]], "max_tokens": 2, "prompt_logprobs": 1}
        try:
            self._complete(body, timeout=WARM_UP_SECONDS).raise_for_status()
        except httpx.TimeoutException as error:
            raise TimedOut(f"the vLLM server does not answer: {error}") from error
        except httpx.HTTPError as error:
            raise EngineFailed(f"the vLLM server does not answer: {error}") from error

    def probe(self, timeout: float) -> bool:
        """Return whether the server writes one token within `timeout` seconds."""
        body = {"model": self.model, "prompt": [[0]], "max_tokens": 1}
        try:
            return self._complete(body, timeout=timeout).is_success
        except httpx.HTTPError:
            return False

    def num_tokens(self) -> int | None:
        """Return how many tokens the server has read and written; None when it does not say."""
        pattern = r"^vllm:(?:prompt|generation)_tokens_total\{.*\} ([0-9.e+]+)$"
        try:
            counts = re.findall(pattern, self.get("/metrics").text, re.MULTILINE)
        except httpx.TransportError:
            return None
        return sum(int(float(count)) for count in counts)

    def num_requests(self) -> int:
        """Return the number of running and queued requests. Raises httpx.TransportError."""
        pattern = r"^vllm:num_requests_(?:running|waiting)\{.*\} ([0-9.e+]+)$"
        counts = re.findall(pattern, self.get("/metrics").text, re.MULTILINE)
        return sum(int(float(count)) for count in counts)

    def context(self) -> int | None:
        """Return how many tokens a prompt and its answer may have; None when it does not say."""
        try:
            [card, *_] = self.get("/v1/models").json()["data"]
        except (httpx.TransportError, ValueError, LookupError):
            return None
        context: int | None = card.get("max_model_len")
        return context

    def cpu_seconds(self) -> float:
        """Return the CPU time of the server's processes so far; 0 where nobody can tell."""
        return self.process.cpu_seconds()

    def get(self, path: str) -> httpx.Response:
        """Send a GET request. Raises httpx.TransportError, also before the server starts."""
        with endpoints.client(self.address, timeout=2) as client:
            return client.get(path)

    def _complete(self, body: dict[str, Any], *, timeout: float) -> httpx.Response:
        with endpoints.client(self.address, timeout=timeout) as client:
            return client.post("/v1/completions", json=body)

    def log_tail(self) -> str:
        """Return the end of the server's log, or why it cannot be read."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - TAIL_BYTES))
                return log.read().decode(errors="replace")
        except OSError as error:
            return f"its log cannot be read: {error}"

    def stop(self, grace: float = STOP_SECONDS) -> None:
        """End the server; kill it when it still runs after `grace` seconds."""
        self.process.terminate(grace)


def log_path(deployment_id: int) -> Path:
    """Return the path of the log of a deployment's server."""
    return settings().home / "logs" / "deployments" / f"{deployment_id}.log"


def start(
    manifest: Manifest,
    *,
    blobs: BlobStore,
    names: Sequence[str],
    log_path: Path,
    options: EngineOptions = DEFAULT,
    launcher: Launcher | None = None,
) -> Server:
    """Start to serve a checkpoint, dense or mixed, under model names; return at once.

    Answers bear the first name. `option_checks` says which options fit.

    `blobs` must be the store of the settings. Its blobs are fetched first where they lie elsewhere:
    the server reads them from the data folder, and has no key of the store. Raises NotFound and
    InvalidCheckpoint as `materialize`.
    """
    for digest in manifest.digests():
        blobs.local_path(digest)
    folder = materialize(manifest, blobs, root=_folders())
    if options.chat_template is not None:
        _write_template(options.chat_template)
    arguments = engine_command.command(folder, names=names, manifest=manifest, options=options)
    return _run(
        arguments,
        model=names[0],
        log_path=log_path,
        num_gpus=options.tensor_parallel or 1,
        launcher=launcher,
    )


def adopt(
    identity: Identity,
    *,
    address: str,
    manifest: Manifest,
    names: Sequence[str],
    log_path: Path,
    launcher: Launcher,
    options: EngineOptions = DEFAULT,
) -> Server:
    """Adopt the running server of an earlier agent if it serves what `start` would serve.

    Raises Unavailable when the process has ended, or serves other weights or another way.
    """
    process = launcher.adopt(identity, address=address)
    folder = _folders() / manifest.digest
    wanted = engine_command.command(folder, names=names, manifest=manifest, options=options)
    place = endpoints.socket_path(address)
    words = [word.replace(SOCKET, place or "") for word in wanted[ENTRY_WORDS:]]
    if process.arguments()[-len(words) :] != words:
        raise Unavailable(f"{process.name} is not the server of {names[0]!r}")
    return Server(process, names[0], log_path)


def _run(
    arguments: list[str],
    *,
    model: str,
    log_path: Path,
    num_gpus: int = 1,
    launcher: Launcher | None = None,
) -> Server:
    process = (launcher or launchers.configured()).run(
        arguments,
        env=engine_environment.environment(os.environ),
        log_path=log_path,
        resources=Resources(
            num_cpus=settings().reserved_cpus or 1, num_gpus=0 if is_cpu_build() else num_gpus
        ),
    )
    return Server(process, model, log_path)


@contextmanager
def serving(
    manifest: Manifest,
    *,
    blobs: BlobStore,
    log_path: Path,
    model: str = "candidate",
    options: EngineOptions = DEFAULT,
) -> Iterator[Server]:
    """Serve a checkpoint for the length of the block. Call `wait_ready` before use."""
    server = start(manifest, blobs=blobs, names=[model], log_path=log_path, options=options)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def serving_folder(folder: Path, *, log_path: Path, model: str = "reference") -> Iterator[Server]:
    """Serve a Hugging Face folder, with vLLM's own loader, for the length of the block."""
    arguments = engine_command.of_folder(folder, names=[model])
    server = _run(arguments, model=model, log_path=log_path)
    try:
        yield server
    finally:
        server.stop()


def _folders() -> Path:
    """Return the folder of model folders and chat templates that engines read."""
    return settings().cache_path / "serving"


def _write_template(template: str) -> None:
    """Write the file of a chat template, unless it is there and unchanged.

    Raises OutOfSpace where only the reserve of the disk is left.
    """
    path = engine_command.template_path(template)
    if path.is_file() and path.read_bytes() == template.encode():
        # The files that were not used for longest are removed first.
        os.utime(path)
        return
    check_room(path)
    with refusing_full_disk(path):
        # An engine that starts meanwhile reads the old file or the new one, each whole.
        incoming = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        incoming.write_bytes(template.encode())
        incoming.replace(path)
