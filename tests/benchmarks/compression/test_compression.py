"""The benchmark of int8 searches runs on tiny models."""

import json
from pathlib import Path

from tests.benchmarks.compression import benchmark


def test_a_quick_run_has_every_subject_and_curve(tmp_path: Path) -> None:
    output = tmp_path / "compression.json"
    assert benchmark.main(["--quick", f"--output={output}"]) == 0
    result = json.loads(output.read_text())
    subjects = result["subjects"]
    assert list(subjects) == [
        "random-llama, seed, cpu",
        "random-llama, seed, cpu-vnni",
        "expert expert-1, cpu",
        "expert expert-1, cpu-vnni",
        "mix of 3 experts, cpu",
        "mix of 3 experts, cpu-vnni",
        "mix of 3 experts, gpu",
    ]
    for subject in subjects.values():
        assert list(subject["curves"]) == ["fdt", "dppl", "perplexity", "order"]
        none, everything = subject["ends"]["none"], subject["ends"]["all"]
        assert list(subject["fdt_ahead_of"]) == ["dppl", "perplexity", "order"]
        for [point] in subject["curves"].values():
            assert everything["num_bytes"] < point["num_bytes"] < none["num_bytes"]
    on_cpu, on_gpu = (subjects[f"mix of 3 experts, {target}"] for target in ("cpu", "gpu"))
    assert on_gpu["num_units"] > on_cpu["num_units"]
    assert list(result["beams"]["widths"]) == ["1", "10"]
    for curves in result["beams"]["widths"].values():
        assert all(len(points) == result["beams"]["num_units"] - 1 for points in curves.values())
    for searched in (subjects["random-llama, seed, cpu"], result["beams"]):
        cost = searched["cost"]
        assert cost["shares_chosen_by_both"] == [1] * (cost["num_rounds"] - 1)
        assert len(cost["shares_chosen_in_other_batches"]) == cost["num_rounds"] - 1
