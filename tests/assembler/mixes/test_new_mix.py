"""A wrong request is refused with all its problems, which are those of its plan.

Covers: text_budget.
"""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from assembler.assembly.inputs import gather
from assembler.mixes import leakage, mixes
from assembler.mixes.new_mix import NewMix
from assembler.planning import plan
from assembler.recipes.recipe import Recipe
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog import documents, experts, kept_documents, projections
from registry.catalog.documents import Document
from registry.catalog.embeddings import Embedders
from registry.errors import InvalidInput, Problem
from registry.settings import settings
from tests import tiny
from tests.assembler import rows

EXPERTS = ["expert-1", "expert-2"]


def problems(session: Session, blobs: LocalBlobs, **changes: Any) -> list[Problem]:
    """Return the problems of a plan; the same request is refused with equal ones."""
    spec = NewMix(**{"name": "mine", "family": "tiny", "experts": EXPERTS, **changes})
    planned = plan.plan(session, blobs, spec)
    with pytest.raises(InvalidInput) as refused:
        mixes.request(session, blobs, spec)
    assert refused.value.problems == planned.problems
    assert planned.size is None
    return list(planned.problems)


def pointers(session: Session, blobs: LocalBlobs, **changes: Any) -> list[str]:
    return [problem.pointer for problem in problems(session, blobs, **changes)]


@pytest.mark.parametrize(
    ("refs", "expected"),
    [
        (["expert-1", "who", "expert-2@7", "../etc"], ["/experts/1", "/experts/2", "/experts/3"]),
        (["expert-1"], ["/experts"]),
        ([], ["/experts"]),
        (["expert-1", "expert-1@1"], ["/experts/1"]),
    ],
)
def test_wrong_experts_have_a_pointer(
    session: Session, blobs: LocalBlobs, refs: list[str], expected: list[str]
) -> None:
    rows.add_all(session, blobs)
    assert pointers(session, blobs, experts=refs) == expected


def test_an_expert_of_another_family_is_refused_with_reasons(
    session: Session, blobs: LocalBlobs
) -> None:
    rows.add_all(session, blobs)
    rows.add_expert(session, blobs, rows.add_family(session, blobs, name="other"), number=3)
    first, hint = problems(session, blobs, experts=["expert-1", "expert-3"])
    assert first == Problem("/experts/1", "'expert-3' is of family 'other', not 'tiny'")
    assert "register it in that family" in hint.detail


def test_an_expert_without_embedding_is_refused(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_all(session, blobs)
    rows.add_expert(session, blobs, family, number=3, embedded=False)
    assert pointers(session, blobs, experts=["expert-1", "expert-3"]) == ["/experts/1"]


def test_an_expert_with_an_old_embedding_is_refused(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_all(session, blobs)
    version = rows.add_expert(session, blobs, family, number=3, embedded=False)
    bigger = Embedders(encoder="e" * 64, states="f" * 64)
    rows.embed(session, blobs, version, [1.0] * 8, embedder="bigger", embedders=bigger)
    (problem,) = problems(session, blobs, experts=["expert-1", "expert-3"])
    assert problem.pointer == "/experts/1"
    assert "embedded by 'bigger'" in problem.detail


def test_a_projection_of_other_domain_embeddings_is_refused(
    session: Session, blobs: LocalBlobs
) -> None:
    rows.add_all(session, blobs)
    projections.pin(session, "tiny@1").embedder_digest = "e" * 64
    (problem,) = problems(session, blobs)
    assert problem.pointer == "/family"
    assert "tiny@1 projects other domain embeddings (eeeeeeeeeeee)" in problem.detail
    assert problem.detail.endswith("ask for a new projection")


def test_a_finetune_must_fit_the_processes(
    session: Session, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_TRAINING_PROCESSES", "6")
    monkeypatch.setenv("NEXUSMIX_EXPERT_PARALLEL_DEGREE", "4")
    settings.cache_clear()
    rows.add_all(session, blobs)
    assert problems(session, blobs, finetune={"batch_size": 8}) == [
        Problem("NEXUSMIX_EXPERT_PARALLEL_DEGREE", "is 4, must divide the 6 training processes"),
        Problem("NEXUSMIX_EXPERT_PARALLEL_DEGREE", "is 4, must divide the mix's 2 experts"),
        Problem("/finetune/batch_size", "is 8, must be a multiple of the 6 training processes"),
    ]
    untrained = NewMix(name="mine", family="tiny", experts=EXPERTS, finetune={"tokens": 0})
    assert plan.plan(session, blobs, untrained).problems == ()


def test_a_family_must_be_known(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    assert pointers(session, blobs, family="none") == ["/family"]


def test_a_family_needs_a_projection(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_family(session, blobs)
    for number in (1, 2):
        rows.add_expert(session, blobs, family, number=number)
    assert pointers(session, blobs) == ["/family"]
    recipe = mixes.request(
        session,
        blobs,
        NewMix(name="mine", family="tiny", experts=EXPERTS, preset="btx"),
    ).recipe
    assert (recipe["projection"], recipe["finetune"]["train"]) == (None, "all")


@pytest.mark.parametrize(
    ("changes", "pointer", "words"),
    [
        ({"preset": "nexuss"}, "/preset", "'nexuss' is no preset; there are nexus, nexus-paper"),
        ({"name": "No Name"}, "/name", "beginning with a letter"),
        ({"assembly": {"combine": "product"}}, "/combine", "'convex' or 'sum'"),
        ({"assembly": {"color": "red"}}, "/color", "there are combine, router,"),
        ({"assembly": {"experts_per_token": 3}}, "/experts_per_token", "more than the 2 experts"),
        ({"assembly": {"shared_expert": False}}, "/combine", "take 'sum'"),
        ({"assembly": {"norm_topk_prob": True}}, "/norm_topk_prob", "leaves nothing"),
        (
            {"preset": "bam", "assembly": {"attention_experts_per_token": 4}},
            "/attention_experts_per_token",
            "more than the 3 experts",
        ),
        ({"finetune": {"tokens": -1}}, "/finetune/tokens", "greater than or equal to 0"),
        ({"finetune": {"token": 1}}, "/finetune/token", "there are tokens,"),
        ({"preset": "btx", "finetune": {"train": "shared"}}, "/finetune/train", "no part 'shared'"),
        ({"gates": {"served": {"min_fdt_75": 99}}}, "/gates", "only 32 tokens are compared"),
    ],
)
def test_wrong_fields_have_a_pointer(
    session: Session, blobs: LocalBlobs, changes: dict[str, Any], pointer: str, words: str
) -> None:
    rows.add_all(session, blobs)
    (problem,) = problems(session, blobs, **changes)
    assert problem.pointer == pointer
    assert words in problem.detail


def test_valid_fields_are_applied_beside_wrong_ones(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    assert pointers(
        session,
        blobs,
        name="No Name",
        experts=["expert-1", "nobody", "expert-1"],
        preset="nexuss",
        # The field that contradicts `shared_expert` is wrong itself, and is reported once.
        assembly={"experts_per_token": 9, "combine": "product", "shared_expert": False},
        finetune={"tokens": -1, "learning_rate": 7},
        gates={"color": "red", "prompts_per_domain": 0, "base": {"color": "red"}},
    ) == [
        "/preset",
        "/combine",
        "/finetune/tokens",
        "/finetune/learning_rate",
        "/gates/prompts_per_domain",
        "/gates/base/color",
        "/gates/color",
        "/name",
        "/experts/1",
        "/experts/2",
        "/experts_per_token",
    ]


def test_too_few_documents_for_one_sequence_are_refused(
    session: Session, blobs: LocalBlobs
) -> None:
    rows.add_all(session, blobs)
    short = [*tiny.sample_documents(expert=1, num_train=0), Document("a", "too little", "train")]
    version = experts.pin(session, "expert-1")
    version.documents_digest = put_bytes(blobs, documents.serialize(short))
    session.flush()
    (problem,) = problems(session, blobs)
    assert problem.pointer == "/experts/0"
    # Here a character is a token, and one more token ends a text.
    assert problem.detail == (
        "the train documents of 'expert-1' have 11 tokens, 128 are needed for one sequence of the"
        " finetune"
    )
    spec = NewMix(name="mine", family="tiny", experts=EXPERTS, finetune={"tokens": 0})
    assert mixes.request(session, blobs, spec).number == 1
    both = problems(session, blobs, finetune={"tokens": 0}, gates={"prefix_tokens": 5000})
    # So long a prefix does not fit into the context either.
    assert [p.pointer for p in both] == ["/gates/prefix_tokens", "/experts/0", "/experts/1"]
    assert all("held-out documents" in problem.detail for problem in both[1:])


def test_a_compression_needs_texts_to_choose_by_and_others_to_judge_by(
    session: Session, blobs: LocalBlobs
) -> None:
    rows.add_all(session, blobs)
    version = experts.pin(session, "expert-1")
    single = tiny.sample_documents(expert=1, num_held_out=1)
    version.documents_digest = put_bytes(blobs, documents.serialize(single))
    session.flush()
    compress = {"min_fdt_75": 8}
    assert problems(session, blobs, compress=compress) == [
        Problem(
            "/experts/0",
            "the held-out documents with even numbers of 'expert-1' have 0 tokens, 128 are needed"
            " for one sequence of the gate",
        )
    ]
    uncompressed = NewMix(name="mine", family="tiny", experts=EXPERTS)
    assert plan.plan(session, blobs, uncompressed).problems == ()


@pytest.mark.parametrize(
    ("fields", "pointer", "detail"),
    [
        ({"target": "cpu"}, "/compress", "one of max_bytes and min_fdt_75 is needed"),
        ({"min_fdt_75": 99}, "/compress", "only 32 tokens are compared"),
        ({"max_bytes": 1}, "/compress/max_bytes", "with all units in int8 it has"),
        ({"max_byte": 1}, "/compress/max_byte", "is no field; there are prompts, prefix_tokens"),
    ],
)
def test_an_impossible_compression_is_refused(
    session: Session, blobs: LocalBlobs, fields: dict[str, Any], pointer: str, detail: str
) -> None:
    rows.add_all(session, blobs)
    (problem,) = problems(session, blobs, compress=fields)
    assert problem.pointer == pointer
    assert detail in problem.detail


def test_an_expert_that_keeps_no_documents_is_told_and_can_be_mixed(
    session: Session, blobs: LocalBlobs
) -> None:
    rows.add_all(session, blobs, num_experts=3)
    kept_documents.forget(session, experts.pin(session, "expert-1").id)
    names = ["expert-1", "expert-2", "expert-3"]
    spec = NewMix(name="mine", family="tiny", experts=names, finetune={"tokens": 4096})
    planned = plan.plan(session, blobs, spec)
    assert not planned.problems
    [warning] = [each for each in planned.warnings if each.kind == "no-documents"]
    assert warning.detail == (
        "expert-1@1 keeps no documents: its domain is not read by the finetune; the gate cannot"
        " judge it: 1 of 3 domains not judged"
    )
    version = mixes.request(session, blobs, spec)
    inputs = gather(session, Recipe.model_validate(version.recipe))
    assert inputs.documents_digests[0] is None
    assert [bool(texts) for texts in inputs.parts(blobs).documents] == [False, True, True]
    known = leakage.finetuned_on(session, inputs.recipe)
    assert known.keys() == {"expert-2@1", "expert-3@1"}
    leakage.check(inputs.recipe, known, blobs)


def test_a_mix_of_which_nothing_could_be_judged_is_refused(
    session: Session, blobs: LocalBlobs
) -> None:
    rows.add_all(session, blobs)
    for name in EXPERTS:
        kept_documents.forget(session, experts.pin(session, name).id)
    (problem,) = problems(session, blobs, finetune={"tokens": 0})
    assert problem.pointer == "/experts"
    assert "so no domain can be judged; take one more that keeps some" in problem.detail


def test_routers_from_documents_need_the_documents_of_all(
    session: Session, blobs: LocalBlobs
) -> None:
    rows.add_all(session, blobs)
    kept_documents.forget(session, experts.pin(session, "expert-1").id)
    (problem,) = problems(session, blobs, preset="flexolmo")
    assert (problem.pointer, problem.detail) == (
        "/router_init",
        "'documents' reads the documents of all experts, and expert-1@1 keeps none",
    )
