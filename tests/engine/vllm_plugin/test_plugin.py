"""vLLM finds the plugin's entry point, and importing it loads nothing else."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path


def test_vllm_finds_the_plugin() -> None:
    [plugin] = entry_points(group="vllm.general_plugins", name="nexusmix")
    assert plugin.value == "engine.vllm_plugin.plugin:register"


def test_importing_it_loads_nothing() -> None:
    code = (
        "import sys, engine.vllm_plugin.plugin;"
        "assert not {'torch', 'vllm', 'transformers'} & set(sys.modules), 'import inside register'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)
