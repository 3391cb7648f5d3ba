"""The benchmark of sparsity, on a tiny model."""

import json
from pathlib import Path

from tests.benchmarks import sparsity


def test_a_quick_run_has_all_curves_at_equal_shares(tmp_path: Path) -> None:
    output = tmp_path / "sparsity.json"
    assert sparsity.main(["--quick", f"--output={output}"]) == 0
    told = json.loads(output.read_text())
    assert [[point["share"] for point in curve] for curve in told["curves"].values()] == [
        [0.2, 0.5],
        [0.2, 0.5],
        [0.2, 0.5],
        [0.2, 0.5],
    ]
    plain, retrained = (told["curves"][name][-1] for name in ("uniform", "uniform, retrained"))
    assert retrained["perplexity"] < plain["perplexity"]
    assert told["curves"]["fdt"][0]["shares"].keys() == told["curves"]["fdt"][1]["shares"].keys()
    assert len(told["curves"]["fdt"][0]["shares"]) == told["num_components"] == 2 * 7
    assert told["removal"]["constructed"]["layers_without_attention"] == 1
    assert told["curves"]["fdt"][1]["num_bytes"] < told["none"]["num_bytes"]
