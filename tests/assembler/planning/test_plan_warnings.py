"""Warnings about a machine that may be too small, similar domains, and lost chat templates."""

from dataclasses import replace

from sqlalchemy.orm import Session

from assembler.mixes.selection import Member
from assembler.planning import plan_warnings
from assembler.recipes.recipe import Recipe
from assembler.routing.router_init import MAX_CONDITION
from registry.blobs.blobs import LocalBlobs
from registry.catalog import embeddings
from tests import tiny
from tests.assembler import moved_attention, rows, tiny_mixes


def test_a_large_machine_gives_no_warning() -> None:
    found = plan_warnings.of_machine(
        memory={"gate": 10}, total_memory=10, disk_needed=10, disk_free=10
    )
    assert list(found) == []


def test_steps_that_do_not_fit_are_named() -> None:
    memory, disk = plan_warnings.of_machine(
        memory={"assemble": 1_000_000_000, "finetune": 30_000_000_000},
        total_memory=24_000_000_000,
        disk_needed=9_000_000_000,
        disk_free=8_000_000_000,
    )
    assert (memory.kind, memory.value) == ("memory", 30e9)
    assert memory.detail.startswith("finetune needs about 30.0 GB of memory")
    assert (disk.kind, disk.value) == ("disk", 9e9)


def test_the_largest_cosine_follows_from_the_condition_number() -> None:
    # Two unit vectors of cosine c have singular values sqrt(1 + c) and sqrt(1 - c).
    cosine = plan_warnings.MAX_COSINE
    assert round(((1 + cosine) / (1 - cosine)) ** 0.5, 6) == MAX_CONDITION


def test_a_chat_template_that_the_seed_lacks_is_warned_of(
    session: Session, blobs: LocalBlobs
) -> None:
    family = rows.add_family(session, blobs)
    version = rows.add_expert(session, blobs, family, number=1)
    expert, seed = tiny.store_manifest(blobs, expert=1), tiny.store_manifest(blobs)
    member = Member(pointer="/experts/0", version=version, manifest=expert, embedding=None)
    bare = replace(seed, files={"tokenizer.json": seed.files["tokenizer.json"]})

    assert list(plan_warnings.of_chat([member], seed, blobs)) == []
    [warning] = plan_warnings.of_chat([member], bare, blobs)
    assert warning.kind == "chat-template"
    assert warning.detail.startswith("'expert-1' has a chat template and its seed has none")


def test_a_plan_says_what_becomes_of_attention(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_family(session, blobs)
    seed = tiny.store_manifest(blobs)
    members = []
    for number in (1, 2):
        version = rows.add_expert(session, blobs, family, number=number)
        [embedding] = embeddings.find_all(session, version)
        expert = tiny.store_manifest(blobs, expert=number)
        if number == 1:
            expert = moved_attention.store_expert(blobs, number=number, dtype="BF16")
        members.append(
            Member(pointer="/experts/0", version=version, manifest=expert, embedding=embedding)
        )

    def warned(recipe: Recipe) -> str:
        [warning] = plan_warnings.of_experts(members, seed, recipe)
        assert (warning.kind, warning.value) == ("attention-moved", 1 / 8)
        assert warning.detail.startswith("'expert-1' changed 1 of 8 attention tensors of the seed")
        return warning.detail

    recipe = tiny_mixes.recipe(experts=(1, 2))
    assert "what expert-1@1, expert-2@1 reads was not stored" in warned(recipe)
    assert "register it again" in warned(recipe)
    plain = recipe.model_copy(update={"averaging": "mean"})
    assert warned(plain).endswith("; this mix with `averaging: regression` loses less")
    changed = plain.model_copy(update={"base": "mine@1"})
    assert warned(changed).endswith("; a new mix with `averaging: regression` loses less")
    assert "the seed is averaged too" in warned(recipe.model_copy(update={"shared_expert": False}))
    for member in members:
        assert member.embedding is not None
        member.embedding.moments_digest = "0" * 64
    assert "a regression on what each expert read keeps most" in warned(recipe)
