"""Tests of the results that a partial run keeps."""

import json
from pathlib import Path

from tests.benchmarks.claims.stored_results import StoredResults

OLD, NEW = {"share_of_gain": [0.5]}, {"share_of_gain": [0.7]}
BEFORE = {"seed": OLD, "nexus": {"0": OLD, "8192": OLD}, "linear": {"0": OLD}}


def stored_before(folder: Path) -> StoredResults:
    path = folder / "result.json"
    result = {"measured": {"small": {"upcycling": "2026-01-02"}}}
    path.write_text(json.dumps(result | {"families": {"small": {"upcycling": BEFORE}}}))
    return StoredResults.of(path)


def test_networks_without_new_figures_are_kept_with_their_day(tmp_path: Path) -> None:
    stored = stored_before(tmp_path)
    stored.renew("small", "upcycling", {"seed": NEW, "nexus": {"8192": NEW}}, keeps=True)
    figures = stored.families["small"]["upcycling"]
    assert figures == {"seed": NEW, "nexus": {"0": OLD, "8192": NEW}, "linear": {"0": OLD}}
    kept = {"linear, 0": "2026-01-02", "nexus, 0": "2026-01-02"}
    assert stored.earlier["small"]["upcycling"] == kept
    assert stored.measured["small"]["upcycling"] > "2026-01-02"


def test_a_day_is_kept_as_long_as_its_figures(tmp_path: Path) -> None:
    stored = stored_before(tmp_path)
    stored.renew("small", "upcycling", {"seed": NEW, "nexus": {"8192": NEW}}, keeps=True)
    stored.renew("small", "upcycling", {"nexus": {"0": NEW}, "linear": {}}, keeps=True)
    earlier = stored.earlier["small"]["upcycling"]
    assert earlier["linear, 0"] == "2026-01-02"
    assert "nexus, 0" not in earlier
    assert earlier["nexus, 8192"] == stored.measured["small"]["upcycling"]


def test_a_run_that_measures_keeps_nothing(tmp_path: Path) -> None:
    stored = stored_before(tmp_path)
    stored.renew("small", "upcycling", {"seed": NEW}, keeps=False)
    assert stored.families["small"]["upcycling"] == {"seed": NEW}
    assert stored.earlier == {}


def test_without_a_result_file_nothing_is_stored(tmp_path: Path) -> None:
    assert StoredResults.of(tmp_path / "none.json") == StoredResults()
