"""Reports, verification and schemas on the command line.

Covers: service.client.local.
"""

import json
from pathlib import Path

from assembler.mixes import mix_state, mixes
from assembler.mixes.new_mix import NewMix
from assembler.tables import MixState
from registry.blobs.blobs import BlobStore, put_bytes
from registry.checkpoints.manifests import canonical_json
from registry.database import db
from tests.assembler import rows
from tests.assembler.published import publish
from tests.service.command_line import run
from tests.service.gate_reports import make_report


def request(store: BlobStore, *, reported: bool) -> None:
    """A finished mix `both`: published, or with a report of two domains."""
    with db.transaction() as session:
        rows.add_all(session, store)
        spec = NewMix(name="both", family="tiny", experts=["expert-1", "expert-2"])
        version = mixes.request(session, store, spec)
        if not reported:
            publish(session, store, version)
            return
        report = make_report(assembled=(50.0, 40.0), finetuned=None)
        content = canonical_json(report.model_dump(mode="json"))
        version.gate_report_digest = put_bytes(store, content)
        mix_state.finish(session, version.id, state=MixState.SUCCEEDED)


def test_a_report_is_printed_and_written(
    installation: None, store: BlobStore, tmp_path: Path
) -> None:
    request(store, reported=True)
    as_json, as_page = tmp_path / "report.json", tmp_path / "report.html"
    done = run("report", "both@1", f"--json={as_json}", f"--html={as_page}")

    passed = json.loads(as_json.read_text())["passed"]
    assert done.returncode == (0 if passed else 1), done.stderr
    assert "50.00" in done.stdout
    assert "both@1" in as_page.read_text()


def test_a_published_mix_is_verified(installation: None, store: BlobStore) -> None:
    request(store, reported=False)
    verified, forged = run("verify", "both"), run("verify", "both", f"--key={'0' * 64}")

    assert verified.returncode == 0, verified.stderr
    assert "NO" not in verified.stdout
    assert forged.returncode == 1
    assert "NO" in forged.stdout


def test_a_schema_is_printed() -> None:
    known, unknown = run("schema", "policy"), run("schema", "color")

    assert "prompts_per_domain" in json.loads(known.stdout)["properties"]
    assert unknown.returncode == 1
    assert "policy, gate-report, divergence-report" in unknown.stderr
