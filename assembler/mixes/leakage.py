"""Refuse mixes whose held-out documents are training documents of any of their experts.

The first step of a job checks this before any training, since it reads all documents; a plan reads
only their beginning. Registration checks the documents of one expert against each other.
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
    """Return the digests of the documents, by pinned expert, of the mix and of its base versions.

    A base version counts because its finetune has read the documents of its experts. Experts whose
    documents are forgotten are left out: nothing can be compared with them.
    """
    refs = dict.fromkeys(recipe.experts)
    while recipe.base is not None:
        recipe = Recipe.model_validate(mixes.get(session, recipe.base).recipe)
        refs |= dict.fromkeys(recipe.experts)
    digests = {ref: _documents_digest(session, ref) for ref in refs}
    return {ref: digest for ref, digest in digests.items() if digest is not None}


def check(recipe: Recipe, known: Mapping[str, str], blobs: BlobStore) -> None:
    """Compare the documents of all experts in `known`, the result of `finetuned_on`.

    Raises InvalidInput with the ids of the held-out documents of the mix's experts whose text is a
    training document of any expert.
    """
    parsed = {ref: documents.parse(blobs.read(digest)) for ref, digest in known.items()}
    trained = {ref: documents.training_texts(texts) for ref, texts in parsed.items()}
    problems = []
    for number, ref in enumerate(recipe.experts):
        if ref not in parsed:
            continue
        for other, texts in trained.items():
            pairs = list(documents.find_leaked(parsed[ref], texts))
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


def _documents_digest(session: Session, ref: str) -> str | None:
    name, number = parse_ref(ref)
    assert number is not None, "recipes are pinned"
    return experts.find_version(session, expert=name, number=number).kept_documents
