"""Tables of the page about the demo."""

from typing import Any

from tests.benchmarks.harness import markdown

TITLES = {
    "seed": "seed",
    "german-manuals": "expert German manuals",
    "metamath": "expert Metamath",
    "dictionary": "expert dictionary",
    "mean merge": "mean of seed and experts",
    "mix before": "**mix, nothing trained**",
    "mix after": "**mix, finetuned**",
    "right expert": "right expert, by label",
}
PROCESSES = {
    "preparation": "training of experts",
    "step": "steps of jobs",
    "engine": "vLLM server",
    "web": "web",
    "worker": "worker",
    "agent": "agent",
    "supervisor": "supervisor",
    "database": "PostgreSQL",
    "command": "command line",
}


def tables() -> dict[str, str]:
    result = markdown.result("demo")
    return {
        "sources": markdown.sources({"demo": "./nexusmix demo --exit --report FILE"}),
        "perplexity": perplexity(result["perplexity"]),
        "stages": stages(result),
        "memory": memory(result["peak_memory"]),
    }


def perplexity(result: dict[str, Any]) -> str:
    domains = list(result["seed"]["domains"])
    head = ["", *domains, "mean log-perplexity", "share of the gain, %"]
    rows = [
        [
            title,
            *(f"{result[name]['domains'][domain]:.2f}" for domain in domains),
            f"{result[name]['mean_log']:.3f}",
            f"{100 * result[name]['share_of_gain']:.0f}",
        ]
        for name, title in TITLES.items()
    ]
    return markdown.table(head, rows)


def stages(result: dict[str, Any]) -> str:
    """Return the seconds of each stage, and of the steps of the mix below their stage."""
    rows = []
    for stage in result["stages"]:
        rows.append([stage["stage"], f"{stage['seconds']:.0f}"])
        if stage["stage"] == "Mix":
            steps = result["mix_step_seconds"].items()
            rows += [[f"– {name}", f"{seconds:.0f}"] for name, seconds in steps if seconds >= 0.5]
    return markdown.table(["stage", "seconds"], [*rows, ["all", f"{result['seconds']:.0f}"]])


def memory(result: dict[str, Any]) -> str:
    """Return the largest memory of each kind of process, shared pages divided (PSS)."""
    rows = [[title, f"{result[kind]['pss'] / 1e6:,.0f}"] for kind, title in PROCESSES.items()]
    return markdown.table(["processes", "MB, peak"], rows)
