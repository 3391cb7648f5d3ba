"""The memory table in the docs is what the function computes."""

from dataclasses import asdict
from itertools import product
from pathlib import Path

from assembler.compute_dtype import ComputingDtype
from assembler.planning.rank_memory import rank_memory
from assembler.recipes.recipe import Finetune, Trained
from assembler.training.parallelism import Parallelism
from registry.architecture import Architecture

SCALING = (Path(__file__).parents[1] / "docs/pages/results/scaling.md").read_text()

# Eight of Llama-2-7B and a shared one; domain embeddings are router inputs and a constant.
MIX = Architecture(
    vocab_size=32_000,
    hidden_size=4096,
    intermediate_size=11_008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    head_dim=128,
    rms_norm_eps=1e-5,
    rope_theta=10_000.0,
    max_position_embeddings=4096,
    tie_word_embeddings=False,
    num_experts=8,
    expert_names=tuple(f"expert-{number}" for number in range(8)),
    domain_embedding_size=4097,
)
# Whatever the machine of the tests is fast in.
ON_GPUS: ComputingDtype = "bfloat16"
PARTS: tuple[Trained, ...] = ("router", "attention", "shared", "all")


def row(train: Trained, parallelism: Parallelism) -> str:
    recipe = Finetune(
        tokens=0,
        train=train,
        batch_size=parallelism.num_processes,
        sequence_length=MIX.max_position_embeddings,
        dtype=ON_GPUS,
    )
    memory = rank_memory(MIX, recipe, parallelism)
    sizes = [f"{size / 1e9:.1f}" for size in (*asdict(memory).values(), memory.total)]
    cells = (train, parallelism.num_processes, parallelism.expert_parallel_degree, *sizes)
    return f"| {' | '.join(map(str, cells))} |"


def test_the_table_is_what_the_function_says() -> None:
    layouts = [
        Parallelism(num_processes=processes, expert_parallel_degree=degree)
        for processes, degree in product((8, 64), (1, 8))
    ]
    expected = [row(train, layout) for train in PARTS for layout in layouts]
    lines = SCALING.splitlines()
    found = [line for line in lines if line.startswith(tuple(f"| {train} |" for train in PARTS))]
    assert found == expected


def test_what_is_said_of_less_fits() -> None:
    parallelism = Parallelism(num_processes=32, expert_parallel_degree=8)
    recipe = Finetune(tokens=0, train="all", batch_size=32, sequence_length=2048, dtype=ON_GPUS)
    memory = rank_memory(MIX, recipe, parallelism)
    assert f"32 with 2,048 tokens hold {memory.total / 1e9:.0f} GB each" in SCALING


def test_the_sizes_are_those_of_the_mix() -> None:
    for number in (MIX.num_parameters, MIX.num_active_parameters):
        assert f"{number / 1e9:.1f} billion" in SCALING
