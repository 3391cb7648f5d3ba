"""The benchmark of sparsity runs on tiny models."""

import json
from pathlib import Path

from tests.benchmarks import sparsity


def test_a_quick_run_has_all_curves_at_equal_shares(tmp_path: Path) -> None:
    output = tmp_path / "sparsity.json"
    assert sparsity.main(["--quick", f"--output={output}"]) == 0
    result = json.loads(output.read_text())
    assert len(result["subjects"]) == 3
    for subject in result["subjects"].values():
        for curve in subject["curves"].values():
            assert [point["share"] for point in curve] == [0.2, 0.5]
        assert len(subject["curves"]["fdt"][0]["shares"]) == subject["num_components"]
        assert subject["curves"]["fdt"][1]["num_bytes"] < subject["none"]["num_bytes"]
    curves = result["subjects"]["random-llama, seed"]["curves"]
    assert list(curves) == ["uniform", "fdt", "uniform, retrained", "fdt, retrained"]
    plain, retrained = (curves[name][-1] for name in ("uniform", "uniform, retrained"))
    assert retrained["perplexity"] < plain["perplexity"]
    assert result["removal"]["constructed"]["layers_without_attention"] == 1
