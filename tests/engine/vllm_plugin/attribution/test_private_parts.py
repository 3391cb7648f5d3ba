"""What `attribution` uses of vLLM beyond its interface is still there.

Where such a part has changed, its test names it, and the module that relies on it. The sources are
read, since importing vLLM takes long.
"""

import ast
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from engine.vllm_build import vllm_package

CONNECTOR_METHODS = {"build_connector_meta", "take_output", "request_finished", "reset"}


@cache
def tree(module: str) -> ast.Module:
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0])
    return ast.parse((folder / f"{module.replace('.', '/')}.py").read_text())


def class_of(module: str, name: str) -> ast.ClassDef:
    for node in tree(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    raise AssertionError(gone(f"the class {name} of {module}"))


def method(module: str, owner: str, name: str) -> ast.FunctionDef:
    for node in class_of(module, owner).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise AssertionError(gone(f"{owner}.{name} of {module}"))


def gone(part: str) -> str:
    package = vllm_package()
    return (
        f"{package} {version(package)} has changed {part}: adapt engine/vllm_plugin/attribution,"
        " and compare with the reference (test_worker, test_middleware)"
    )


@pytest.mark.parametrize(
    ("module", "owner", "name"),
    [
        # worker.py
        ("v1.worker.cpu_worker", "CPUWorker", "init_device"),
        ("v1.worker.cpu_model_runner", "CPUModelRunner", "load_model"),
        ("v1.worker.gpu_model_runner", "GPUModelRunner", "execute_model"),
        ("v1.worker.gpu_model_runner", "GPUModelRunner", "sample_tokens"),
        ("v1.worker.gpu_model_runner", "GPUModelRunner", "_model_forward"),
    ],
)
def test_a_method_that_is_overridden_exists(module: str, owner: str, name: str) -> None:
    assert method(module, owner, name)


def test_the_worker_makes_the_first_runner() -> None:
    made = ast.unparse(method("v1.worker.cpu_worker", "CPUWorker", "init_device"))
    assert "self.model_runner = CPUModelRunner(" in made, gone("how CPUWorker makes its runner")


def test_the_runner_calls_the_network_in_one_place() -> None:
    body = ast.unparse(method("v1.worker.gpu_model_runner", "GPUModelRunner", "execute_model"))
    assert body.count("self._model_forward(") == 1, gone("how a step calls the network")


@pytest.mark.parametrize(
    "part", ["self.input_batch", "self.query_start_loc", "self.requests", "num_computed_tokens_cpu"]
)
def test_the_runner_knows_whose_tokens_a_batch_holds(part: str) -> None:
    runner = ast.unparse(class_of("v1.worker.gpu_model_runner", "GPUModelRunner"))
    assert part in runner, gone(f"`{part}` of the runner")


def test_the_scheduler_calls_the_methods_of_our_connector() -> None:
    called = {
        node.func.attr
        for node in ast.walk(class_of("v1.core.sched.scheduler", "Scheduler"))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "self.aux_output_connector"
    }
    assert called == CONNECTOR_METHODS, gone("what its scheduler asks of `aux_output_connector`")


@pytest.mark.parametrize(
    ("module", "owner", "field"),
    [
        ("v1.outputs", "ModelRunnerOutput", "aux_output_connector_output"),
        ("v1.engine", "EngineCoreOutput", "routed_experts"),
        ("v1.engine", "EngineCoreOutput", "new_token_ids"),
        ("v1.engine", "EngineCoreRequest", "cache_salt"),
        ("sampling_params", "SamplingParams", "extra_args"),
        ("sampling_params", "SamplingParams", "skip_reading_prefix_cache"),
    ],
)
def test_a_field_that_carries_rows_or_masks_exists(module: str, owner: str, field: str) -> None:
    module = f"{module}.__init__" if module == "v1.engine" else module
    names = {
        node.target.id
        for node in class_of(module, owner).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert field in names, gone(f"{owner}.{field} of {module}")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("add_request", ["self", "request", "prompt", "parent_req", "request_index", "queue"]),
        ("process_outputs", ["self", "engine_core_outputs"]),
    ],
)
def test_the_output_processor_is_called_as_ours(name: str, arguments: list[str]) -> None:
    found = method("v1.engine.output_processor", "OutputProcessor", name)
    names = [argument.arg for argument in found.args.args]
    assert names[: len(arguments)] == arguments, gone(f"OutputProcessor.{name}")


def test_the_engine_client_makes_the_output_processor_that_its_module_names() -> None:
    made = ast.unparse(method("v1.engine.async_llm", "AsyncLLM", "__init__"))
    assert "self.output_processor = OutputProcessor(" in made, gone("AsyncLLM.output_processor")


def test_a_request_is_registered_before_the_engine_gets_it() -> None:
    """Mask and salt are written into the request when it is registered."""
    for node in ast.walk(class_of("v1.engine.async_llm", "AsyncLLM")):
        if isinstance(node, ast.AsyncFunctionDef) and node.name == "_add_request":
            body = ast.unparse(node)
            order = body.find("output_processor.add_request("), body.find("add_request_async(")
            assert 0 <= order[0] < order[1], gone("AsyncLLM._add_request")
            return
    raise AssertionError(gone("AsyncLLM._add_request"))


def test_prompts_of_a_completion_are_numbered_in_their_ids() -> None:
    source = ast.unparse(tree("entrypoints.openai.completion.serving"))
    assert "f'{request_id}-{i}'" in source, gone("the ids of a completion's prompts")
    assert "f'cmpl-{" in source, gone("the ids of completions")


def test_the_server_keeps_what_the_middleware_reads() -> None:
    source = ast.unparse(tree("entrypoints.launchers.api_server.app_state"))
    for part in ("state.engine_client = ", "state.vllm_config = "):
        assert part in source, gone(f"`{part}` of its server")
