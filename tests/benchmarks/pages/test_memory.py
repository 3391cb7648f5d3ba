"""The prose of the page about finetuning at scale agrees with the planner."""

from assembler.planning.rank_memory import rank_memory
from assembler.recipes.recipe import Finetune
from assembler.training.parallelism import Parallelism
from tests.benchmarks.pages import pages
from tests.benchmarks.pages.memory import MIX, ON_GPUS


def test_the_smaller_setting_fits() -> None:
    parallelism = Parallelism(num_processes=32, expert_parallel_degree=8)
    recipe = Finetune(tokens=0, train="all", batch_size=32, sequence_length=2048, dtype=ON_GPUS)
    memory = rank_memory(MIX, recipe, parallelism)
    text = pages.path("scaling").read_text()
    assert f"32 GPUs with 2,048 tokens hold {memory.total / 1e9:.0f} GB each" in text


def test_the_sizes_are_those_of_the_mix() -> None:
    text = pages.path("scaling").read_text()
    for number in (MIX.num_parameters, MIX.num_active_parameters):
        assert f"{number / 1e9:.1f} billion" in text
