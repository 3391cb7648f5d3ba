"""Settings come from the environment, and all wrong ones are named together.

Covers: engine_limits, request_limits.
"""

from pathlib import Path

import pytest

from registry.errors import InvalidInput
from registry.settings import Settings, settings


def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("NEXUSMIX_PORT", "9000")
    assert settings().port == 9000
    assert settings().blobs_path == home / "blobs"


def test_all_wrong_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_PORT", "70000")
    monkeypatch.setenv("NEXUSMIX_LAUNCHER", "slurm")
    with pytest.raises(InvalidInput) as refused:
        settings()
    pointers = {problem.pointer for problem in refused.value.problems}
    assert pointers == {"NEXUSMIX_PORT", "NEXUSMIX_LAUNCHER"}


def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_S3_SECRET_ACCESS_KEY", "hush")
    assert "hush" not in repr(settings())


def test_a_process_on_a_cluster_takes_one_core_and_its_gpu() -> None:
    here, cluster = Settings(launcher="local"), Settings(launcher="ray")
    assert (here.reserved_cpus, cluster.reserved_cpus) == (None, 1)
    assert (here.server_gpu_memory, cluster.server_gpu_memory) == (0.4, 0.9)
    overridden = Settings(launcher="ray", num_threads=3, gpu_memory_utilization=0.5)
    assert (overridden.reserved_cpus, overridden.server_gpu_memory) == (3, 0.5)


def test_the_hub_is_the_one_that_other_tools_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert Settings().hub_endpoint == "https://huggingface.co"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert Settings().hub_endpoint == "https://mirror.example"
    monkeypatch.setenv("NEXUSMIX_HUB_ENDPOINT", "https://own.example")
    assert Settings().hub_endpoint == "https://own.example"


def test_places_that_imports_may_fetch_from_are_written_in_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings().allowed_origins == frozenset()
    monkeypatch.setenv("NEXUSMIX_IMPORT_ORIGINS", "http://10.0.0.5 https://Mirror.inner:8443/")
    assert Settings().allowed_origins == {"http://10.0.0.5:80", "https://mirror.inner:8443"}
    monkeypatch.setenv("NEXUSMIX_IMPORT_ORIGINS", "10.0.0.5")
    with pytest.raises(InvalidInput) as refused:
        settings()
    assert "must begin with https://" in refused.value.problems[0].detail
