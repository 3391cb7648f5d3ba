"""What of a result survives a run that has not found all of it."""

import json
from pathlib import Path

from tests.benchmarks.claims.stored_results import Known

OLD, NEW = {"share_of_gain": [0.5]}, {"share_of_gain": [0.7]}
BEFORE = {"seed": OLD, "nexus": {"0": OLD, "8192": OLD}, "linear": {"0": OLD}}


def known(folder: Path) -> Known:
    path = folder / "result.json"
    result = {"measured": {"small": {"upcycling": "2026-01-02"}}}
    path.write_text(json.dumps(result | {"families": {"small": {"upcycling": BEFORE}}}))
    return Known.of(path)


def test_what_is_not_found_is_kept_with_its_day(tmp_path: Path) -> None:
    own = known(tmp_path)
    own.renew("small", "upcycling", {"seed": NEW, "nexus": {"8192": NEW}}, keeps=True)
    told = own.families["small"]["upcycling"]
    assert told == {"seed": NEW, "nexus": {"0": OLD, "8192": NEW}, "linear": {"0": OLD}}
    kept = {"linear, 0": "2026-01-02", "nexus, 0": "2026-01-02"}
    assert own.earlier["small"]["upcycling"] == kept
    assert own.measured["small"]["upcycling"] > "2026-01-02"


def test_a_day_is_kept_as_long_as_its_figures(tmp_path: Path) -> None:
    own = known(tmp_path)
    own.renew("small", "upcycling", {"seed": NEW, "nexus": {"8192": NEW}}, keeps=True)
    own.renew("small", "upcycling", {"nexus": {"0": NEW}, "linear": {}}, keeps=True)
    earlier = own.earlier["small"]["upcycling"]
    assert earlier["linear, 0"] == "2026-01-02"
    assert "nexus, 0" not in earlier
    assert earlier["nexus, 8192"] == own.measured["small"]["upcycling"]


def test_a_run_that_measures_keeps_nothing(tmp_path: Path) -> None:
    own = known(tmp_path)
    own.renew("small", "upcycling", {"seed": NEW}, keeps=False)
    assert own.families["small"]["upcycling"] == {"seed": NEW}
    assert own.earlier == {}


def test_without_a_result_nothing_is_known(tmp_path: Path) -> None:
    assert Known.of(tmp_path / "none.json") == Known()
