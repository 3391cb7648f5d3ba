"""Check, before a job begins, that the experts' documents suffice for its finetune and its gate.

Documents are read and tokenized only until they suffice.
"""

from collections.abc import Iterator, Mapping, Sequence

from tokenizers import Tokenizer

from assembler import tokenizer_file
from assembler.mixes.selection import Member
from assembler.recipes.recipe import Recipe
from engine.gates.mix_gate import WINDOW_TOKENS
from registry.blobs.blobs import BlobStore, get_bytes
from registry.catalog import documents
from registry.catalog.documents import Document, Split
from registry.checkpoints.file_names import TOKENIZER
from registry.checkpoints.manifests import Manifest
from registry.errors import Problem

# No text consists of longer tokens throughout, so no more characters need to be tokenized.
CHARACTERS_PER_TOKEN = 64


def problems(
    members: Sequence[Member], recipe: Recipe, seed: Manifest, blobs: BlobStore
) -> Iterator[Problem]:
    """Report experts whose documents do not fill one sequence of the finetune or of the gate."""
    needed: dict[Split, int] = {"held-out": max(WINDOW_TOKENS, recipe.gates.prefix_tokens)}
    if recipe.finetune.num_steps:
        needed["train"] = recipe.finetune.sequence_length
    tokenizer = tokenizer_file.read(get_bytes(blobs, seed.files[TOKENIZER]))
    num_ends = int(seed.config.get("eos_token_id") is not None)
    for member in members:
        texts = documents.stream(blobs.read(member.version.documents_digest))
        for split, (found, wanted) in _missing(texts, needed, tokenizer, num_ends).items():
            detail = (
                f"the {split} documents of {member.name!r} have {found} tokens, {wanted} are needed"
                f" for one sequence of the {'gate' if split == 'held-out' else 'finetune'}"
            )
            yield Problem(member.pointer, detail)


def _missing(
    texts: Iterator[Document], needed: Mapping[Split, int], tokenizer: Tokenizer, num_ends: int
) -> dict[Split, tuple[int, int]]:
    """Return the found and the needed number of tokens, for each split that has too few.

    `num_ends` end tokens follow each document.
    """
    found = dict.fromkeys(needed, 0)
    missing = set(needed)
    for document in texts:
        split = document.split
        if split in missing:
            text = document.text[: CHARACTERS_PER_TOKEN * needed[split]]
            found[split] += len(tokenizer.encode(text, add_special_tokens=False)) + num_ends
            if found[split] >= needed[split]:
                missing.remove(split)
        if not missing:
            break
    return {split: (found[split], needed[split]) for split in sorted(missing)}
