"""The environment, read once into a frozen object."""

from functools import cache
from pathlib import Path
from typing import Literal

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from registry.errors import InvalidInput, Problem


class Settings(BaseSettings):
    """Everything that differs between two installations; each field is `NEXUSMIX_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="NEXUSMIX_", frozen=True)

    home: Path = Field(
        default_factory=lambda: user_data_path("nexusmix"),
        description="Data folder: embedded database, tensors, caches, logs, the generated key.",
    )
    database_url: str | None = Field(
        default=None,
        description="A PostgreSQL with pgvector to use instead of the embedded one.",
    )
    s3_bucket: str | None = Field(
        default=None, description="Bucket for tensors instead of the data folder."
    )
    s3_endpoint_url: str | None = Field(default=None, description="S3 server other than AWS.")
    s3_access_key_id: SecretStr | None = Field(default=None, description="S3 key.")
    s3_secret_access_key: SecretStr | None = Field(default=None, description="S3 secret.")
    host: str = Field(default="127.0.0.1", description="Address the web process listens on.")
    port: int = Field(default=8421, ge=0, le=65535, description="Port of the web process.")
    executor_id: str = Field(
        default="worker-1",
        description="Name of the worker on this host; keep it stable, jobs are recovered by it.",
    )
    num_threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of one process; if unset all cores, which training processes share"
        " out among themselves, and on a cluster one.",
    )
    launcher: Literal["local", "ray"] = Field(
        default="local",
        description="Who starts steps and engines: this machine, or a Ray cluster (ray).",
    )
    ray_address: str = Field(
        default="auto",
        description="The Ray cluster that this host is a node of; auto finds it.",
    )
    training_processes: int = Field(
        default=1, ge=1, description="Processes of one finetune; on GPUs one for each."
    )
    expert_parallel_degree: int = Field(
        default=1,
        ge=1,
        description="Training processes that share out the routed experts, each keeping some. "
        "Divides the processes and the experts.",
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
        description="How long a mix that its gate has refused can be inspected and overruled.",
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    max_upload_bytes: int = Field(
        default=64 * 2**30, gt=0, description="Largest single tensor or file accepted."
    )

    @property
    def reserved_cpus(self) -> int | None:
        """CPUs that one process is to use; None: all that its machine has."""
        return self.num_threads or (1 if self.launcher == "ray" else None)

    @property
    def server_gpu_memory(self) -> float:
        """Share of a GPU's memory for one server: a cluster gives each a GPU of its own."""
        return self.gpu_memory_utilization or (0.9 if self.launcher == "ray" else 0.4)

    @property
    def blobs_path(self) -> Path:
        """Local tensor store; with S3, the cache of fetched tensors."""
        return self.home / "blobs"

    @property
    def cache_path(self) -> Path:
        """What can be made again: corpora, trained demo experts, checkpoints of running jobs."""
        return self.home / "cache"

    @property
    def postgres_path(self) -> Path:
        return self.home / "postgres"

    @property
    def key_path(self) -> Path:
        """The generated API key of the embedded installation, readable by its owner only."""
        return self.home / "api-key"

    @property
    def signing_key_path(self) -> Path:
        """The generated key that artifacts are signed with, readable by its owner only."""
        return self.home / "signing-key.pem"


@cache
def settings() -> Settings:
    """Raises InvalidInput, naming every variable that cannot be what it says."""
    try:
        return Settings()
    except ValidationError as error:
        problems = tuple(
            Problem(f"NEXUSMIX_{item['loc'][0]}".upper(), item["msg"]) for item in error.errors()
        )
        raise InvalidInput("the settings are wrong", problems=problems) from error
