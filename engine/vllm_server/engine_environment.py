"""The environment of a vLLM server: what it needs, and nothing secret."""

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path

from engine.threads import spin_count_variables
from engine.vllm_build import is_cpu_build
from engine.vllm_server import endpoints
from engine.vllm_server.context import KV_CACHE_VARIABLE
from registry import tracing
from registry.settings import settings

# How often a thread of libgomp polls for work before it sleeps; writing one token takes hundreds of
# waits. Times relative to threads that sleep at once, for SmolLM2-135M in int8 on two cores: 0.61
# with eight requests together and 0.56 with one (float32 with 10,000 polls: 0.79 and 0.71). Beside
# two busy processes the ratios are 1.5 and 1.2; with 10,000 polls, which take 0.3 ms, they are 8.4
# and 2.4.
SPIN_COUNT = 1000
# Names the file of the key that a server asks for, if it listens on a port.
KEY_VARIABLE = "NEXUSMIX_ENGINE_KEY_FILE"
# Variables that a server gets, unless their name says that they are secret.
PASSED_ON = re.compile(
    "PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|TZ|TMPDIR|VIRTUAL_ENV|CC|CXX|CFLAGS|CXXFLAGS"
    "|NEXUSMIX_(HOME|LAUNCHER|NUM_THREADS|LOG_LEVEL|GPU_MEMORY_UTILIZATION)|(PYTHON|TORCH).*"
    "|(LC|LD|XDG|VLLM|PYTORCH|TRITON|OMP|GOMP|KMP|MKL|OPENBLAS|DNNL|ONEDNN|ATEN|CUDA|CUBLAS|NVIDIA"
    "|NCCL|GLOO|MALLOC|OTEL_BSP)_.*"
    "|OTEL_EXPORTER_OTLP_(TRACES_)?(TIMEOUT|CERTIFICATE|COMPRESSION)"
)
SECRET = re.compile("KEY|TOKEN|SECRET|PASSW|CREDENTIAL")


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a server: what it needs of `base`, with the variables of vLLM.

    Nothing else is passed on: an environment can be read, and ours holds addresses with passwords.
    Variables of `base` win, except GOMP_SPINCOUNT: the process that starts a server has its own
    value of it.
    """
    base = {name: base[name] for name in base if _is_passed_on(name)}
    defaults = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        # Plugins of other packages are not loaded into our servers.
        "VLLM_PLUGINS": "nexusmix",
        # The default folder in /tmp is everybody's: an engine of another installation that ends
        # while it compiles leaves half a library there, and all later starts fail.
        "TORCHINDUCTOR_CACHE_DIR": str(settings().cache_path.absolute() / "torchinductor"),
    }
    if tracing.collector() is not None:
        defaults |= {
            "OTEL_SERVICE_NAME": tracing.service_name("engine"),
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": tracing.PROTOCOL,
            # Only what a traced request asks for: probes and gates ask without a trace.
            "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        }
    if settings().launcher != "local":
        endpoints.make_key()
        defaults[KEY_VARIABLE] = str(endpoints.key_path())
    if not is_cpu_build():
        return defaults | dict(base)
    defaults |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # vLLM compiles a few functions even where its networks run as they are. The first requests
        # waited seconds for that; a sampled token takes 0.4 ms more without it.
        "TORCHDYNAMO_DISABLE": "1",
        # vLLM would use one thread otherwise.
        "OMP_NUM_THREADS": str(settings().reserved_cpus or len(os.sched_getaffinity(0))),
        "LD_PRELOAD": str(_torch_folder() / "lib" / "libgomp.so.1"),
    }
    return defaults | dict(base) | spin_count_variables(SPIN_COUNT, base)


def _is_passed_on(name: str) -> bool:
    # vLLM would take the size of the cache from the variable, and not from its command line.
    is_needed = bool(PASSED_ON.fullmatch(name)) and name != KV_CACHE_VARIABLE
    return is_needed and not SECRET.search(name)


def _torch_folder() -> Path:
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
