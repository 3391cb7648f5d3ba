"""Measurements against other tools, run by `./nexusmix bench NAME`.

A benchmark is a module or a package with `main(argv) -> int`, and a line in `BENCHMARKS`. With
`--quick` it runs all its parts on little data. Its result is written to `--output`, by default
`results/NAME.json`, and committed.
"""

# Names, with dashes for the underscores of modules, and what each measures.
BENCHMARKS = {
    "admission": "What stalled uploads, idle connections and readers of events cost others.",
    "assembly": "Assembly of four experts against mergekit-moe, and the export against the disk.",
    "attribution": "What it costs to say who spoke, and to switch experts off in a request.",
    "chaos": "What is left of a working service when every part of it is broken at random.",
    "claims": "What the papers claim of these methods, and this project, on real text.",
    "compression": "int8 unit by unit: costs and results of a search.",
    "divergence": "What a compared token costs, with known texts and with generated ones.",
    "divergence-page": "The page of divergence results, filled from the results of benchmarks.",
    "faults": "Faults, the stage of a gate that sees each, and rebuilds that are no alarm.",
    "finetune": "Tokens per second of a finetune against transformers' Qwen2-MoE.",
    "fuzz": "Generated requests and files, of which none may find a fault.",
    "gate": "How long `nexusmix gate` takes, once the texts of the reference are known.",
    "gateway": "Requests a second and latency of the gateway beside LiteLLM's proxy.",
    "lifecycle": "The life of a mix on real experts: made, extended, reduced, made again.",
    "mix-gate": "Seconds of the gate of a mix, by what is known beforehand.",
    "pages": "Tables of the results pages, filled from the committed results.",
    "perturbation": "Which metrics tell pruned small weights from weights pruned at random.",
    "preview": "Seconds from the request for a mix to the first token of its preview.",
    "registration": "How long an expert is registered, by stage, and what each process computes.",
    "serving": "What compression is worth where a model is served.",
    "sparsity": "Zeros chosen by divergent tokens against equal shares.",
    "start": "Seconds of the start of an engine to its first token, from nothing and forked.",
}
