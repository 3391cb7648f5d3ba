"""What the list of models says of each: context, experts, license and state."""

from sqlalchemy.orm import Session

from assembler.mixes import mixes
from assembler.mixes.new_mix import NewMix
from engine.serving import deployments, previews
from engine.serving.tables import DeploymentState
from registry.blobs.blobs import LocalBlobs
from registry.catalog import artifacts
from registry.database.tables import ExpertVersion, Family
from service.reports import model_cards
from tests.assembler import rows
from tests.assembler.published import publish
from tests.engine.factories import make_artifact


def test_a_release_has_its_experts_their_license_and_its_context(
    session: Session, blobs: LocalBlobs
) -> None:
    rows.add_all(session, blobs)
    session.query(ExpertVersion).filter_by(number=1).update({"license": "MIT"})
    spec = NewMix(name="both", family="tiny", experts=["expert-1", "expert-2"])
    version = publish(session, blobs, mixes.request(session, blobs, spec))
    assert version.artifact_id is not None
    artifact = artifacts.get(session, version.artifact_id)
    row = deployments.request(session, artifact, model="both")
    row.state, row.context = DeploymentState.ASLEEP, 128
    [card] = model_cards.cards(session, {"both": row})
    assert (card["id"], card["object"], card["owned_by"]) == ("both", "model", "nexusmix")
    assert card["max_model_len"] == 128
    assert card["nexusmix"] == {
        "deployment": row.id,
        "artifact": artifact.id,
        "preview": False,
        "state": "asleep",
        "experts": [{"name": "expert-1", "version": 1}, {"name": "expert-2", "version": 1}],
        # Of the seed and of the experts together.
        "license": "Apache-2.0 AND MIT",
    }


def test_a_preview_has_the_experts_of_its_mix(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    spec = NewMix(name="both", family="tiny", experts=["expert-1", "expert-2"])
    mixes.request(session, blobs, spec)
    row = previews.request(session, "a" * 64, model="both", ref="both@1")
    [card] = model_cards.cards(session, {"both@1": row})
    assert [expert["name"] for expert in card["nexusmix"]["experts"]] == ["expert-1", "expert-2"]
    assert (card["nexusmix"]["preview"], card["nexusmix"]["license"]) == (True, "Apache-2.0")


def test_a_license_that_is_not_known_is_not_guessed(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    artifact = make_artifact(session, blobs)
    artifact.recipe = {"family": "tiny", "experts": ["expert-1@1", "gone@1"]}
    row = deployments.request(session, artifact, model="m")
    plain = deployments.request(session, make_artifact(session, blobs, expert=1), model="n")
    found = model_cards.cards(session, {"m": row, "n": plain})
    assert [card["nexusmix"]["license"] for card in found] == [None, None]
    assert [len(card["nexusmix"]["experts"]) for card in found] == [2, 0]
    assert session.query(Family).one().license == "Apache-2.0"
