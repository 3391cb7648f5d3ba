"""The page of a mix: every step, the whole loss curve, its routing, and what answers for it.

Covers: routing_views.
"""

import re

from assembler.mixes import mix_state, mixes, previews
from assembler.mixes.new_mix import NewMix
from assembler.recipes import presets
from assembler.recipes.recipe import Preset, Recipe
from assembler.tables import JobEvent, MixState
from engine.gates.perplexities import Routing
from engine.serving.tables import DeploymentState
from registry.blobs.blobs import BlobStore
from registry.database import db
from service.ui import mix_views, routing_views
from service.ui.rendering import render
from tests.assembler import rows
from tests.assembler.published import assemble
from tests.service.gate_reports import make_report

NUM_STEPS = 2500


def recipe_of(*, experts: tuple[str, ...], preset: Preset) -> Recipe:
    return Recipe(
        **presets.assembly(preset).model_dump(),
        family="tiny",
        experts=experts,
        finetune=presets.finetune(preset, num_experts=len(experts)),
    )


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


def test_the_shares_of_experts_are_those_of_the_steps() -> None:
    recipe = recipe_of(experts=("a@1", "b@1"), preset="btx")
    points = [
        {"num_tokens": 512 * step, "loss": 3.0, "expert_shares": [0.5, 0.25 * step, 0.1]}
        for step in (1, 2)
    ]
    shares = routing_views.shares(recipe, points)
    assert shares is not None
    assert shares.experts == ("a", "b", "seed")
    assert shares.points == [[512, 1024], [0.5, 0.5], [0.25, 0.5], [0.1, 0.1]]
    # An earlier version recorded none.
    assert routing_views.shares(recipe, [{"num_tokens": 512, "loss": 3.0}]) is None


def test_the_routing_is_shown_before_and_after_the_finetune() -> None:
    before = {"sea": 0.55, "law": 0.45}
    routing = {
        domain: Routing(assembled=before, finetuned={"sea": own, "law": 1 - own})
        for domain, own in (("sea", 0.97), ("law", 0.04))
    }
    report = make_report(assembled=(30, 40), finetuned=(29, 39), routing=routing)
    first, second = routing_views.matrices(report)
    assert first.experts == second.experts == ("sea", "law")
    assert first.rows == (("sea", (0.55, 0.45)), ("law", (0.55, 0.45)))
    assert [domain for domain, _ in second.rows] == ["sea", "law"]
    html = render("_routing.html", view={"routing": [first, second]})
    assert "Before the finetune" in html
    assert re.search(r'class="number heat-10 best">97 %<', html)


def test_a_report_without_routing_shows_none() -> None:
    assert routing_views.matrices(make_report(assembled=(30, 40), finetuned=None)) == []


def test_without_a_finetune_there_is_one_matrix() -> None:
    routing = {domain: Routing(assembled={"sea": 1.0, "law": 0.0}) for domain in ("sea", "law")}
    [matrix] = routing_views.matrices(
        make_report(assembled=(30, 40), finetuned=None, routing=routing)
    )
    assert matrix.title == "As assembled"


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
