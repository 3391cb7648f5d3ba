"""The page of a mix: every step, the whole loss curve, and what answers for it."""

from assembler.mixes import mix_state, mixes, previews
from assembler.mixes.new_mix import NewMix
from assembler.tables import JobEvent, MixState
from engine.serving.tables import DeploymentState
from registry.blobs.blobs import BlobStore
from registry.database import db
from service.ui import mix_views
from service.ui.rendering import render
from tests.assembler import rows
from tests.assembler.published import assemble

NUM_STEPS = 2500


def test_a_long_finetune_is_shown_to_its_end(store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store)
        spec = NewMix(name="mine", family="tiny", experts=["expert-1", "expert-2"])
        version = mixes.request(session, store, spec)
        for step in ("assemble", "finetune"):
            mix_state.begin(session, version.id, step=step)
            if step == "finetune":
                session.add_all(
                    JobEvent(
                        job_id=version.job_id,
                        type="metrics",
                        message="progress",
                        data={"num_tokens": 512 * n, "loss": 3.0 / n, "step": n},
                    )
                    for n in range(1, NUM_STEPS + 1)
                )
                session.flush()
            mix_state.complete(session, version.id, step=step)
        mix_state.begin(session, version.id, step="gate")
        mix_state.finish(session, version.id, state=MixState.FAILED, error="no room")
    with db.transaction() as session:
        view = mix_views.view(session, store, mixes.get(session, "mine@1"))

    states = {step.title: step.state for step in view.steps}
    assert (states["Assemble"], states["Finetune"], states["Gate"]) == ("done", "done", "stopped")
    assert view.messages[-1].message == "no room"
    tokens, losses = view.curve
    assert (tokens[0], tokens[-1]) == (512, 512 * NUM_STEPS)
    assert losses[-1] == 3.0 / NUM_STEPS
    assert len(tokens) < NUM_STEPS / 2


def test_a_preview_is_marked_and_leads_to_a_chat(store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store)
        spec = NewMix(name="mine", family="tiny", experts=["expert-1", "expert-2"])
        version = mixes.request(session, store, spec, deploy=True, preview=True)
        assemble(session, store, version)
        preview = previews.request(session, version)
        assert preview is not None
        assert not mix_views.view(session, store, version).settled
        preview.state = DeploymentState.READY
        view = mix_views.view(session, store, version)
        mix_state.finish(session, version.id, state=MixState.CANCELLED)
        ended = mix_views.view(session, store, mixes.get(session, "mine@1"))

    assert (view.is_preview, view.serving, view.model) == (True, DeploymentState.READY, "mine")
    page = render("_mix.html", view=view)
    assert "its gate has not judged it yet" in page
    assert 'href="/playground#model=mine"' in page
    assert ended.serving is None
    assert "Chat" not in render("_mix.html", view=ended)
