"""Settings of an installation, read once from the environment."""

import os
import socket
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from platformdirs import user_data_path
from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from registry.database_address import with_driver
from registry.engine_limits import EngineLimits
from registry.errors import InvalidInput, Problem
from registry.origins import origin_of
from registry.request_limits import RequestLimits

PUBLIC_HUB = "https://huggingface.co"


def without_slash(address: str) -> str:
    """Return an address without a slash at its end; paths are appended to it."""
    return address.rstrip("/")


def in_full(places: str) -> str:
    """Return places with their ports. Raises ValueError for what is none."""
    return " ".join(map(origin_of, places.split()))


class Settings(RequestLimits, EngineLimits):
    """Settings that differ between installations; the variable of a field is `NEXUSMIX_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="NEXUSMIX_", frozen=True)

    home: Path = Field(
        default_factory=lambda: user_data_path("nexusmix"),
        description="Data folder: embedded database, tensors, caches, logs, the generated key.",
    )
    database_url: Annotated[str, AfterValidator(with_driver)] | None = Field(
        default=None,
        description="Address of a PostgreSQL with pgvector that replaces the embedded one:"
        " `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE`.",
    )
    s3_bucket: str | None = Field(
        default=None, description="S3 bucket for tensors; if unset the data folder holds them."
    )
    s3_endpoint_url: str | None = Field(
        default=None, description="Address of an S3 server other than AWS."
    )
    s3_access_key_id: SecretStr | None = Field(default=None, description="S3 key.")
    s3_secret_access_key: SecretStr | None = Field(default=None, description="S3 secret.")
    host: str = Field(default="127.0.0.1", description="Address the web process listens on.")
    port: int = Field(default=8421, ge=0, le=65535, description="Port of the web process.")
    anonymous_read: bool = Field(
        default=False,
        description="Whether reading needs no key. A request that a proxy has forwarded needs one"
        " all the same.",
    )
    executor_id: str = Field(
        default="worker-1",
        description="Name of the worker on this host; keep it stable, jobs are recovered by it.",
    )
    host_name: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        max_length=255,
        description="Name of this host; agents on one database divide the models by it. The default"
        " is the machine's name.",
    )
    housekeeping_hours: float = Field(
        default=6.0,
        ge=0,
        le=36_500,
        allow_inf_nan=False,
        description="Hours between removals of what nobody needs, see `nexusmix gc`; 0 is never.",
    )
    scrub_bytes_per_second: int = Field(
        default=8 * 2**20,
        ge=0,
        description="How fast the service reads its tensors in the background, to find damaged"
        " ones; 0 is not at all.",
    )
    disk_reserve_bytes: int = Field(
        default=2**30,
        ge=0,
        description="Bytes on the disk of the data folder that stay free for the database.",
    )
    upload_days: float = Field(
        default=30.0,
        gt=0,
        le=36_500,
        allow_inf_nan=False,
        description="Days for which an upload can be completed, and a refused one retried.",
    )
    grace_hours: float = Field(
        default=24.0,
        ge=1,
        le=36_500,
        allow_inf_nan=False,
        description="Hours for which a tensor or file that nothing needs stays: an upload or a job"
        " may be about to name it.",
    )
    cache_bytes: int = Field(
        default=50 * 2**30,
        ge=0,
        description="Largest size in bytes of what can be made again below the data folder; what"
        " was not used for longest is removed.",
    )
    s3_cache_bytes: int = Field(
        default=200 * 2**30,
        ge=0,
        description="Largest size in bytes of the local copies of tensors, with an S3 bucket.",
    )
    event_days: float = Field(
        default=90.0,
        ge=1,
        le=36_500,
        allow_inf_nan=False,
        description="Days for which the events of a job that ended are kept.",
    )
    log_days: float = Field(
        default=30.0,
        ge=1,
        le=36_500,
        allow_inf_nan=False,
        description="Days for which logs of ended jobs and engines are kept.",
    )
    log_bytes: int = Field(
        default=64 * 2**20,
        gt=0,
        description="Bytes at which a running process's log is rotated; the last three are kept.",
    )
    num_threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of one process; if unset all cores, which the training processes"
        " of a machine share, and on a cluster one.",
    )
    preload: bool = Field(
        default=True,
        description="Whether a worker keeps a process that has imported torch and transformers,"
        " and an agent without cards one that has imported vLLM. Steps and engines then start"
        " seconds earlier. They take 0.4 and 0.6 GB; an engine shares most of the latter.",
    )
    serve_seeds: bool = Field(
        default=True,
        description="Whether vLLM reads a text with the seed of each new family, and must agree"
        " with the reference network. It takes as long as the start of an engine.",
    )
    measure_experts: bool = Field(
        default=True,
        description="Whether what gates need to know of an expert is measured once it is ready.",
    )
    launcher: Literal["local", "ray"] = Field(
        default="local",
        description="What starts steps and engines: this machine (local), or a Ray cluster (ray).",
    )
    ray_address: str = Field(
        default="auto",
        description="Address of the Ray cluster that this host is a node of; auto finds it.",
    )
    training_processes: int = Field(
        default=1, ge=1, description="Processes of one finetune; with GPUs one process for each."
    )
    expert_parallel_degree: int = Field(
        default=1,
        ge=1,
        description="Number of training processes that share the routed experts; each holds a part."
        " It must divide the processes and the experts.",
    )
    gpu_memory_utilization: float | None = Field(
        default=None,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Share of a GPU's memory that one vLLM server takes; if unset 0.4, so that a"
        " new version can start beside the one before it, and 0.9 on a cluster.",
    )
    candidate_days: float = Field(
        default=14.0,
        ge=0,
        allow_inf_nan=False,
        le=36_500,
        description="Days for which a mix whose gate failed can be inspected and overridden.",
    )
    database_connect_seconds: int = Field(
        default=5,
        ge=2,
        le=600,
        description="How long a database that restarts, or is away, is waited for.",
    )
    database_statement_seconds: float = Field(
        default=30.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="Longest time of one statement in the database; maintenance has no limit.",
    )
    database_lock_seconds: float = Field(
        default=10.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="Longest time that a statement waits for rows that another one has locked.",
    )
    database_idle_seconds: float = Field(
        default=60.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="Longest time that a transaction stays open without a statement.",
    )
    database_pool_seconds: float = Field(
        default=10.0,
        gt=0,
        le=600,
        allow_inf_nan=False,
        description="How long a request waits for one of the process's database connections.",
    )
    outage_seconds: float = Field(
        default=300.0,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="How long models go on answering known keys while the database is away.",
    )
    step_retry_seconds: float = Field(
        default=3600.0,
        ge=0,
        allow_inf_nan=False,
        le=30 * 86_400,
        description="Seconds for which a step of a job is tried again while the database or the"
        " object store is away or the disk is full. Then the job fails, and can be retried.",
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    hub_endpoint: Annotated[str, AfterValidator(without_slash)] = Field(
        default_factory=lambda: os.environ.get("HF_ENDPOINT") or PUBLIC_HUB,
        description="Address of the Hugging Face Hub, or of a mirror, that `hf:` means. The default"
        f" is `HF_ENDPOINT`, or else `{PUBLIC_HUB}`.",
    )

    from_key: SecretStr | None = Field(
        default=None,
        description="Key of the other nexusmix that `register --from nexusmix:` reads;"
        " `--from-key-file` names a file instead.",
    )
    hub_token: SecretStr | None = Field(
        default=None,
        description="Token with which imports of the service ask the Hub. Whoever may publish can"
        " then import what it may read.",
    )
    import_origins: Annotated[str, AfterValidator(in_full)] = Field(
        default="",
        description="Places that imports of the service may fetch from although they are private,"
        " use another port or no TLS: `SCHEME://HOST:PORT`, with a space between two.",
    )

    @property
    def allowed_origins(self) -> frozenset[str]:
        """The places of `import_origins`."""
        return frozenset(self.import_origins.split())

    @property
    def reserved_cpus(self) -> int | None:
        """CPUs that one process uses; None means all CPUs of its machine."""
        return self.num_threads or (1 if self.launcher == "ray" else None)

    @property
    def server_gpu_memory(self) -> float:
        """Share of a GPU's memory for one server; on a cluster each server has its own GPU."""
        return self.gpu_memory_utilization or (0.9 if self.launcher == "ray" else 0.4)

    @property
    def blobs_path(self) -> Path:
        """Folder of the tensors; with S3, the cache of fetched tensors."""
        return self.home / "blobs"

    @property
    def cache_path(self) -> Path:
        """Folder of files that can be made again: corpora, demo experts, checkpoints of jobs."""
        return self.home / "cache"

    @property
    def imports_path(self) -> Path:
        """Folder of what the user of this machine has fetched to be imported."""
        return self.cache_path / "imports"

    @property
    def asked_imports_path(self) -> Path:
        """Folder of what workers fetch, for each version its own: other users may not have it."""
        return self.cache_path / "asked-imports"

    @property
    def postgres_path(self) -> Path:
        """Data folder of the embedded PostgreSQL."""
        return self.home / "postgres"

    @property
    def key_path(self) -> Path:
        """File of the generated API key of an installation, readable by its owner only."""
        return self.home / "api-key"

    @property
    def signing_key_path(self) -> Path:
        """File of the generated key that signs artifacts, readable by its owner only."""
        return self.home / "signing-key.pem"


@cache
def settings() -> Settings:
    """Read the settings once. Raises InvalidInput with every variable that has a wrong value."""
    try:
        return Settings()
    except ValidationError as error:
        problems = tuple(
            Problem(f"NEXUSMIX_{item['loc'][0]}".upper(), item["msg"]) for item in error.errors()
        )
        raise InvalidInput("the settings are wrong", problems=problems) from error
