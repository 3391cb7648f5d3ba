"""A real vLLM server does what the options of its deployment say."""

from collections.abc import Iterator

import pytest

from engine.vllm_build import is_cpu_build
from engine.vllm_server import endpoints, vllm_process
from engine.vllm_server.engine_options import EngineOptions
from engine.vllm_server.vllm_process import Server
from registry import settings
from registry.blobs.blobs import LocalBlobs
from tests.assembler import tiny_mixes

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
OPTIONS = EngineOptions.model_validate(
    {
        "context": 64,
        "kv_memory_bytes": 2**24,
        "dtype": "bfloat16",
        "chat_template": TEMPLATE,
        "tool_parser": "hermes",
        "engine_args": {
            "max_num_seqs": 3,
            "max_num_batched_tokens": 48,
            "enable_prefix_caching": False,
            "block_size": 32,
        },
    }
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    blobs = LocalBlobs(home / "blobs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXUSMIX_HOME", str(home))
        settings.settings.cache_clear()
        mix = tiny_mixes.store_mix(blobs)
        log_path = home / "server.log"
        with vllm_process.serving(mix, blobs=blobs, log_path=log_path, options=OPTIONS) as served:
            served.wait_ready()
            yield served


@pytest.mark.slow
def test_the_context_is_the_one_of_the_options(served: Server) -> None:
    assert served.context() == 64
    body = {"model": served.model, "prompt": [[1] * 70], "max_tokens": 1}
    with endpoints.client(served.address, timeout=60) as client:
        refused = client.post("/v1/completions", json=body)
        taken = client.post("/v1/completions", json=body | {"prompt": [[1] * 60]})
    assert refused.status_code == 400
    assert "64" in refused.text
    assert taken.is_success, taken.text


@pytest.mark.slow
def test_the_template_writes_the_prompt(served: Server) -> None:
    """The template of the checkpoint would write special tokens and the word `assistant`."""
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": served.model, "messages": messages, "add_special_tokens": False}
    with endpoints.client(served.address, timeout=60) as client:
        tokens = client.post("/tokenize", json=body).json()["tokens"]
        answer = client.post("/v1/chat/completions", json=body | {"max_tokens": 2})
        chat = client.post("/detokenize", json={"model": served.model, "tokens": tokens}).json()
    assert chat["prompt"] == "user: hello\n"
    assert answer.json()["usage"]["prompt_tokens"] == len(tokens)


@pytest.mark.slow
def test_vllm_has_taken_the_arguments(served: Server) -> None:
    with endpoints.client(served.address, timeout=60) as client:
        [cache] = [
            line
            for line in client.get("/metrics").text.splitlines()
            if line.startswith("vllm:cache_config_info")
        ]
    assert 'block_size="32"' in cache
    assert 'enable_prefix_caching="False"' in cache
    if is_cpu_build():
        assert f'kv_cache_memory_bytes="{2**24}"' in cache
    log = served.log_path.read_text()
    assert "dtype=torch.bfloat16" in log
    assert "'max_num_seqs': 3" in log
    assert "'tool_call_parser': 'hermes'" in log
