"""A server gets what it needs from the environment, and nothing secret."""

import pytest

from engine.vllm_server import endpoints, engine_environment
from registry.settings import settings


def test_given_environment_variables_win(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = engine_environment.environment({"OMP_NUM_THREADS": "7"})
    assert environment["OMP_NUM_THREADS"] == "7"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"


def test_the_spin_count_of_the_starting_process_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_environment, "is_cpu_build", lambda: True)
    environment = engine_environment.environment({"GOMP_SPINCOUNT": "10000"})
    assert environment["GOMP_SPINCOUNT"] == str(engine_environment.SPIN_COUNT)


def test_a_chosen_wait_policy_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_environment, "is_cpu_build", lambda: True)
    environment = engine_environment.environment({"OMP_WAIT_POLICY": "PASSIVE"})
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "GOMP_SPINCOUNT" not in environment


def test_nothing_secret_is_passed_on() -> None:
    secret = {
        "NEXUSMIX_DATABASE_URL": "postgresql://me:word@host/db",
        "NEXUSMIX_S3_SECRET_ACCESS_KEY": "word",
        "AWS_SECRET_ACCESS_KEY": "word",
        "PGPASSWORD": "word",
        "HTTPS_PROXY": "http://me:word@host",
        "VLLM_API_KEY": "word",
        "OF_SOMEBODY": "word",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=word",
    }
    needed = {"PATH": "/usr/bin", "CUDA_VISIBLE_DEVICES": "0", "NEXUSMIX_HOME": "/data"}
    environment = engine_environment.environment(secret | needed)
    assert needed.items() <= environment.items()
    assert not [value for value in environment.values() if "word" in value]


def test_a_server_on_a_port_finds_its_key_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_environment.KEY_VARIABLE not in engine_environment.environment({})
    monkeypatch.setenv("NEXUSMIX_LAUNCHER", "ray")
    settings.cache_clear()
    environment = engine_environment.environment({})
    assert environment[engine_environment.KEY_VARIABLE] == str(endpoints.key_path())
    assert endpoints.find_key() not in environment.values()


def test_compiled_code_is_kept_in_the_cache_of_the_installation() -> None:
    """Half a library in a folder for everybody would stop the engines of all installations."""
    folder = engine_environment.environment({})["TORCHINDUCTOR_CACHE_DIR"]
    assert folder.startswith(str(settings().cache_path))


def test_engines_trace_what_traced_requests_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "OTEL_TRACES_SAMPLER" not in engine_environment.environment({})
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    environment = engine_environment.environment({"OTEL_BSP_SCHEDULE_DELAY": "100"})
    assert environment["OTEL_TRACES_SAMPLER"] == "parentbased_always_off"
    assert environment["OTEL_SERVICE_NAME"] == "nexusmix-engine"
    assert environment["OTEL_BSP_SCHEDULE_DELAY"] == "100"
