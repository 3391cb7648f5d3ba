"""One vLLM server for one checkpoint: start it, wait for it, query it, stop it."""

import json
import os
import re
import sys
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
from engine.launch.launcher import HOST, PORT, SOCKET, Launcher, Process, Resources
from engine.vllm_build import is_cpu_build, serving_dtype
from engine.vllm_plugin.model_folder import materialize
from engine.vllm_plugin.plugin import LOAD_FORMAT
from engine.vllm_server import endpoints, engine_environment, tool_parsers
from engine.vllm_server.context import context_tokens
from registry import tracing
from registry.blobs.blobs import BlobStore
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.file_names import CONFIG, TOKENIZER
from registry.checkpoints.manifests import Manifest
from registry.errors import EngineFailed, InvalidCheckpoint, TimedOut, Unavailable
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
    launcher: Launcher | None = None,
) -> Server:
    """Start to serve a checkpoint, dense or mixed, under model names; return at once.

    Answers bear the first name.

    `blobs` must be the store of the settings. Its blobs are fetched first where they lie elsewhere:
    the server reads them from the data folder, and has no key of the store. Raises NotFound and
    InvalidCheckpoint as `materialize`.
    """
    for digest in manifest.digests():
        blobs.local_path(digest)
    folder = materialize(manifest, blobs, root=settings().cache_path / "serving")
    arguments = command(folder, names=names, manifest=manifest)
    return _run(arguments, model=names[0], log_path=log_path, launcher=launcher)


def adopt(
    identity: Identity,
    *,
    address: str,
    manifest: Manifest,
    names: Sequence[str],
    log_path: Path,
    launcher: Launcher,
) -> Server:
    """Adopt the running server of an earlier agent if it serves what `start` would serve.

    Raises Unavailable when the process has ended, or serves other weights or another way.
    """
    process = launcher.adopt(identity, address=address)
    folder = settings().cache_path / "serving" / manifest.digest
    wanted = command(folder, names=names, manifest=manifest)
    place = endpoints.socket_path(address)
    options = [option.replace(SOCKET, place or "") for option in wanted[ENTRY_WORDS:]]
    if process.arguments()[-len(options) :] != options:
        raise Unavailable(f"{process.name} is not the server of {names[0]!r}")
    return Server(process, names[0], log_path)


def _run(
    arguments: list[str], *, model: str, log_path: Path, launcher: Launcher | None = None
) -> Server:
    process = (launcher or launchers.configured()).run(
        arguments,
        env=engine_environment.environment(os.environ),
        log_path=log_path,
        resources=Resources(
            num_cpus=settings().reserved_cpus or 1, num_gpus=0 if is_cpu_build() else 1
        ),
    )
    return Server(process, model, log_path)


@contextmanager
def serving(
    manifest: Manifest, *, blobs: BlobStore, log_path: Path, model: str = "candidate"
) -> Iterator[Server]:
    """Serve a checkpoint for the length of the block. Call `wait_ready` before use."""
    server = start(manifest, blobs=blobs, names=[model], log_path=log_path)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def serving_folder(folder: Path, *, log_path: Path, model: str = "reference") -> Iterator[Server]:
    """Serve a Hugging Face folder, with vLLM's own loader, for the length of the block."""
    arguments = _command(
        folder,
        names=[model],
        load_format="auto",
        max_model_len=_max_model_len(json.loads((folder / CONFIG).read_text())),
        has_tokenizer=(folder / TOKENIZER).is_file(),
    )
    server = _run(arguments, model=model, log_path=log_path)
    try:
        yield server
    finally:
        server.stop()


def command(folder: Path, *, names: Sequence[str], manifest: Manifest) -> list[str]:
    """Return the command line that serves the model folder of `manifest` under model names."""
    return _command(
        folder,
        names=names,
        load_format=LOAD_FORMAT,
        max_model_len=_max_model_len(manifest.config),
        has_tokenizer=TOKENIZER in manifest.files,
    )


def _command(
    folder: Path, *, names: Sequence[str], load_format: str, max_model_len: str, has_tokenizer: bool
) -> list[str]:
    options = {
        "model": str(folder),
        "load-format": load_format,
        "dtype": serving_dtype(),
        "max-model-len": max_model_len,
        "middleware": "engine.vllm_plugin.attribution.middleware.NexusField",
    }
    if settings().launcher == "local":
        options["uds"] = SOCKET
    else:
        options |= {"host": HOST, "port": PORT}
    flags = []
    if is_cpu_build():
        flags.append("enforce-eager")
        options |= {
            "worker-cls": "engine.vllm_plugin.attribution.worker.AttributingWorker",
            "scheduler-cls": "engine.vllm_plugin.attribution.scheduler.AttributingScheduler",
        }
    else:
        options["gpu-memory-utilization"] = str(settings().server_gpu_memory)
    if not has_tokenizer:
        flags.append("skip-tokenizer-init")
    if (collector := tracing.collector()) is not None:
        options["otlp-traces-endpoint"] = collector
    if (parser := tool_parsers.find(folder)) is not None:
        flags.append("enable-auto-tool-choice")
        options["tool-call-parser"] = parser
    return [
        sys.executable,
        *("-m", "engine.vllm_plugin.api_server"),
        *(f"--{name}={value}" for name, value in options.items()),
        *(f"--{flag}" for flag in flags),
        "--served-model-name",
        *names,
    ]


def _max_model_len(config: dict[str, Any]) -> str:
    """Return the option of that name for the model of a `config.json`.

    `auto` lets vLLM take the model's own context, or as much of it as its cache can hold. On a card
    only vLLM knows that size, and of a folder of another family only vLLM knows the network.
    """
    try:
        architecture = Architecture.from_config(config)
    except InvalidCheckpoint:
        return "auto"
    return str(context_tokens(architecture)) if is_cpu_build() else "auto"
