"""Tables of the page about the demo, for each family that has a committed result."""

from dataclasses import dataclass
from typing import Any

from assembler.demo import seeds
from assembler.demo.demo_seed import DemoSeed
from tests.benchmarks.harness import markdown, reports

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
    "preloaded": "what steps and engines are forked from",
    "engine": "vLLM server",
    "web": "web",
    "worker": "worker",
    "agent": "agent",
    "supervisor": "supervisor",
    "database": "PostgreSQL",
    "command": "command line",
    "other": "others",
}
MERGED = ("mean merge", "mix before", "mix after")


@dataclass(frozen=True)
class Demo:
    """A committed result, and the seed that it started from."""

    seed: DemoSeed
    result: dict[str, Any]

    @property
    def title(self) -> str:
        return f"`{self.seed.name}`"

    def perplexity(self, name: str) -> dict[str, Any]:
        """Return a row of perplexities; the names of experts end in the family's suffix."""
        rows: dict[str, dict[str, Any]] = self.result["perplexity"]
        return rows[name] if name in rows else rows[name + self.seed.suffix]

    @property
    def domains(self) -> dict[str, str]:
        """The domains by the names of their experts."""
        names = self.perplexity("seed")["domains"]
        return {name: name.removesuffix(self.seed.suffix) for name in names}


def name_of(seed: DemoSeed) -> str:
    """Return the name of a family's result."""
    return "demo" if seed is seeds.DEFAULT else f"demo-{seed.name}"


def command_of(seed: DemoSeed) -> str:
    family = "" if seed is seeds.DEFAULT else f" --family {seed.name}"
    return f"./nexusmix demo{family} --exit --report FILE"


def committed() -> list[Demo]:
    """Return the results that there are, with the usual family's first."""
    return [
        Demo(seed, markdown.result(name_of(seed)))
        for seed in seeds.SEEDS.values()
        if (reports.RESULTS / f"{name_of(seed)}.json").exists()
    ]


def tables() -> dict[str, str]:
    demos = committed()
    usual, *others = demos
    return {
        "sources": markdown.sources({name_of(d.seed): command_of(d.seed) for d in demos}),
        "perplexity": perplexity(usual),
        "stages": stages(usual.result),
        "memory": memory(usual.result["peak_memory"]),
        "families": families(demos),
        "other-families": "\n\n".join(map(section, others)),
    }


def families(demos: list[Demo]) -> str:
    """Return what the mix of each family reaches, and what its demo takes."""
    shares = [f"{TITLES[name].strip('*')}, % of the gain" for name in MERGED]
    head = ["family", *shares, "seconds", "tokens a second", "MB, largest peak"]
    rows = [
        [
            demo.title,
            *(f"{100 * demo.perplexity(name)['share_of_gain']:.0f}" for name in MERGED),
            f"{demo.result['seconds']:,.0f}",
            f"{demo.result['tokens_per_second']:.0f}",
            f"{max(kind['pss'] for kind in demo.result['peak_memory'].values()) / 1e6:,.0f}",
        ]
        for demo in demos
    ]
    return markdown.table(head, rows)


def section(demo: Demo) -> str:
    """Return all tables of a further family below a heading."""
    parts = [perplexity(demo), stages(demo.result), memory(demo.result["peak_memory"])]
    return "\n\n".join([f"### {demo.title}", *parts])


def perplexity(demo: Demo) -> str:
    head = ["", *demo.domains.values(), "mean log-perplexity", "share of the gain, %"]
    rows = []
    for name, title in TITLES.items():
        row = demo.perplexity(name)
        values = [f"{row['domains'][domain]:.2f}" for domain in demo.domains]
        share = f"{100 * row['share_of_gain']:.0f}"
        rows.append([title, *values, f"{row['mean_log']:.3f}", share])
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
    rows = [
        [title, f"{result[kind]['pss'] / 1e6:,.0f}"]
        for kind, title in PROCESSES.items()
        if kind in result
    ]
    return markdown.table(["processes", "MB, peak"], rows)
