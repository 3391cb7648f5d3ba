"""Held-out documents are text that no finetune saw: neither of its own expert, nor of another.

Told in the first step of a job, which reads documents whole, before anything is trained; a plan
reads their beginning only. Within one expert it is told when that is registered.
"""

from collections.abc import Mapping

from sqlalchemy.orm import Session

from assembler.mixes import mixes
from assembler.recipes.recipe import Recipe
from registry.blobs.blobs import BlobStore
from registry.catalog import documents, experts
from registry.errors import InvalidInput, Problem, pointer
from registry.names import parse_ref

MAX_IDS = 5


def finetuned_on(session: Session, recipe: Recipe) -> dict[str, str]:
    """Digests of the documents of every expert that the mix, or a version it goes back to, was or
    is to be finetuned with; by pinned reference."""
    refs = dict.fromkeys(recipe.experts)
    while recipe.base is not None:
        recipe = Recipe.model_validate(mixes.get(session, recipe.base).recipe)
        refs |= dict.fromkeys(recipe.experts)
    return {ref: _documents_digest(session, ref) for ref in refs}


def check(recipe: Recipe, known: Mapping[str, str], blobs: BlobStore) -> None:
    """`known` is what `finetuned_on` gives. Raises InvalidInput with the held-out documents of the
    mix's experts that have the text of a training document of any, by their ids."""
    parsed = {ref: documents.parse(blobs.read(digest)) for ref, digest in known.items()}
    trained = {ref: documents.training_texts(own) for ref, own in parsed.items()}
    problems = []
    for number, ref in enumerate(recipe.experts):
        for other, texts in trained.items():
            pairs = list(documents.seen(parsed[ref], texts))
            if pairs:
                ids = ", ".join(f"{mine!r} is {theirs!r}" for mine, theirs in pairs[:MAX_IDS])
                more = f", and {len(pairs) - MAX_IDS} more" if len(pairs) > MAX_IDS else ""
                detail = (
                    f"{len(pairs)} held-out documents of {ref} are training documents of {other}:"
                    f" {ids}{more}; leave them out of one of the two"
                )
                problems.append(Problem(pointer("experts", number), detail))
    if problems:
        raise InvalidInput("held-out text was trained on", problems=tuple(problems))


def _documents_digest(session: Session, ref: str) -> str:
    name, number = parse_ref(ref)
    assert number is not None, "recipes are pinned"
    return experts.find_version(session, expert=name, number=number).documents_digest
