"""Table of the page about finetuning at scale: memory of a process, as the planner computes it."""

from dataclasses import asdict
from itertools import product

from assembler.compute_dtype import ComputingDtype
from assembler.planning.rank_memory import rank_memory
from assembler.recipes.recipe import Finetune, Trained
from assembler.training.parallelism import Parallelism
from registry.checkpoints.architecture import Architecture
from tests.benchmarks.harness import markdown

# Eight routed experts and a shared one in the shapes of Llama-2-7B. A domain embedding is a router
# input and a constant.
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
# Fixed, so that it does not depend on the machine that runs this.
ON_GPUS: ComputingDtype = "bfloat16"
TRAINED: tuple[Trained, ...] = ("router", "attention", "shared", "all")
HEAD = (
    *("trained", "GPUs", "degree", "frozen weights", "trained weights", "gradients", "moments"),
    *("activations", "gathered", "dispatch", "logits", "in all"),
)


def tables() -> dict[str, str]:
    layouts = [
        Parallelism(num_processes=processes, expert_parallel_degree=degree)
        for processes, degree in product((8, 64), (1, 8))
    ]
    rows = [_row(train, layout) for train in TRAINED for layout in layouts]
    return {"memory": markdown.table(HEAD, rows)}


def _row(train: Trained, parallelism: Parallelism) -> list[str]:
    recipe = Finetune(
        tokens=0,
        train=train,
        batch_size=parallelism.num_processes,
        sequence_length=MIX.max_position_embeddings,
        dtype=ON_GPUS,
    )
    memory = rank_memory(MIX, recipe, parallelism)
    sizes = [f"{size / 1e9:.1f}" for size in (*asdict(memory).values(), memory.total)]
    return [
        train,
        str(parallelism.num_processes),
        str(parallelism.expert_parallel_degree),
        *sizes,
    ]
