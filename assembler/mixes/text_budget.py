"""Check, before a job begins, that the experts' documents suffice for its finetune and its gate.

Documents are read and tokenized only until they suffice.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from tokenizers import Tokenizer

from assembler import tokenizer_file
from assembler.mixes.selection import Member
from assembler.recipes.recipe import Recipe
from engine.gates.mix_gate import WINDOW_TOKENS
from registry.blobs.blobs import BlobStore, get_bytes
from registry.catalog import documents, experts
from registry.catalog.documents import Document
from registry.checkpoints.file_names import TOKENIZER
from registry.checkpoints.manifests import Manifest
from registry.errors import Problem

# A split, or with a compression the halves of the held-out split: it is chosen by one and judged by
# the other.
Part = Literal["train", "held-out", "choosing", "judging"]
# The documents of each part, and the step that reads them.
PARTS: Mapping[Part, tuple[str, str]] = {
    "train": ("the train documents", "finetune"),
    "held-out": ("the held-out documents", "gate"),
    "choosing": ("the held-out documents with odd numbers", "compression"),
    "judging": ("the held-out documents with even numbers", "gate"),
}
# No text consists of longer tokens throughout, so no more characters need to be tokenized.
CHARACTERS_PER_TOKEN = 64


def problems(
    members: Sequence[Member], recipe: Recipe, seed: Manifest, blobs: BlobStore
) -> Iterator[Problem]:
    """Report experts whose documents do not fill one sequence of a step that reads them.

    Experts that keep no documents are passed over, but one of them has to keep some: a gate that
    measures nothing is none.
    """
    forgetful = [member for member in members if member.version.kept_documents is None]
    if len(forgetful) == len(members):
        detail = "none of these experts keeps documents, so no domain can be judged; take one more"
        yield Problem("/experts", f"{detail} that keeps some")
        return
    if forgetful and recipe.router_init == "documents" and recipe.kind == "mixture":
        names = ", ".join(experts.ref_of(member.version) for member in forgetful)
        detail = f"'documents' reads the documents of all experts, and {names} keeps none"
        yield Problem("/router_init", detail)
    sequence = max(WINDOW_TOKENS, recipe.gates.prefix_tokens)
    needed: dict[Part, int] = {"held-out": sequence}
    if recipe.compress is not None:
        needed = {"choosing": sequence, "judging": sequence}
    if recipe.finetune.num_steps:
        needed["train"] = recipe.finetune.sequence_length
    tokenizer = tokenizer_file.read(get_bytes(blobs, seed.files[TOKENIZER]))
    num_ends = int(seed.config.get("eos_token_id") is not None)
    for member in members:
        if (digest := member.version.kept_documents) is None:
            continue
        texts = documents.stream(blobs.read(digest))
        parts = _parts(texts, is_split=recipe.compress is not None)
        for part, (found, wanted) in _missing(parts, needed, tokenizer, num_ends).items():
            which, reader = PARTS[part]
            detail = (
                f"{which} of {member.name!r} have {found} tokens, {wanted} are needed"
                f" for one sequence of the {reader}"
            )
            yield Problem(member.pointer, detail)


def _parts(texts: Iterable[Document], *, is_split: bool) -> Iterator[tuple[Part, Document]]:
    """Yield each document with its part; see `registry.catalog.documents.split_held_out`."""
    halves: Iterator[Part] = itertools.cycle(("choosing", "judging"))
    for document in texts:
        if document.split == "held-out" and is_split:
            yield next(halves), document
        else:
            yield document.split, document


def _missing(
    texts: Iterator[tuple[Part, Document]],
    needed: Mapping[Part, int],
    tokenizer: Tokenizer,
    num_ends: int,
) -> dict[Part, tuple[int, int]]:
    """Return the found and the needed number of tokens, for each part that has too few.

    `num_ends` end tokens follow each document.
    """
    found = dict.fromkeys(needed, 0)
    missing = set(needed)
    for part, document in texts:
        if part in missing:
            text = document.text[: CHARACTERS_PER_TOKEN * needed[part]]
            found[part] += len(tokenizer.encode(text, add_special_tokens=False)) + num_ends
            if found[part] >= needed[part]:
                missing.remove(part)
        if not missing:
            break
    return {part: (found[part], needed[part]) for part in sorted(missing)}
