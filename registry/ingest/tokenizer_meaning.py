"""Compare two `tokenizer.json` by what they make of a text, not by their bytes.

Each version of the library writes the file anew: merges as texts or as pairs, defaults written out
or left out. Truncation and padding are no part of a tokenizer.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from registry.checkpoints.file_names import TOKENIZER
from registry.errors import Incompatible, InvalidCheckpoint, Problem, pointer

AT = pointer("files", TOKENIZER)
# They decide which tokens a text has. Post-processor and decoder only frame a text, and turn tokens
# into text again: mixes use those of the family.
DECIDING = ("model", "normalizer", "pre_tokenizer")
# What the library takes where a part leaves a field out.
DEFAULTS: dict[str, dict[str, Any]] = {
    "ByteLevel": {"add_prefix_space": True, "trim_offsets": True, "use_regex": True},
}
# Tokens that a sentence shows.
MAX_NAMED = 3


@dataclass(frozen=True)
class Meaning:
    """A tokenizer: its vocabulary and added tokens with their numbers, and its other parts."""

    vocabulary: dict[str, int]
    added: dict[str, int]
    parts: dict[str, Any]

    @classmethod
    def of(cls, data: bytes) -> "Meaning":
        """Read a `tokenizer.json`. Raises InvalidCheckpoint."""
        try:
            content = json.loads(data)
            model = dict(content["model"])
            vocab, merges = model.pop("vocab"), model.pop("merges", [])
            if not isinstance(vocab, dict):
                # Unigram has a list of tokens with scores.
                model["scores"] = [score for _, score in vocab]
                vocab = {token: number for number, (token, _) in enumerate(vocab)}
            model["merges"] = [m if isinstance(m, str) else " ".join(m) for m in merges]
            added = {token["content"]: token["id"] for token in content.get("added_tokens", [])}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            detail = f"{TOKENIZER} is no tokenizer: {error!r}"
            raise InvalidCheckpoint(detail, problems=(Problem(AT, detail),)) from error
        parts = {name: _plain(content.get(name)) for name in DECIDING}
        return cls(vocab, added, parts | {"model": _plain(model)})

    @cached_property
    def tokens(self) -> dict[str, int]:
        """All tokens and their numbers."""
        return self.vocabulary | self.added

    @cached_property
    def words(self) -> dict[int, str]:
        """The token of each number."""
        return {number: token for token, number in self.tokens.items()}


@dataclass(frozen=True)
class Comparison:
    """The tokenizer of an expert beside the one of its family."""

    own: Meaning
    family: Meaning

    @property
    def more(self) -> dict[str, int]:
        """Added tokens that the family does not have."""
        known = self.family.tokens
        return {token: number for token, number in self.own.added.items() if token not in known}

    @property
    def other_parts(self) -> list[str]:
        """Parts that decide which tokens a text has, and differ."""
        return [name for name in DECIDING if self.own.parts[name] != self.family.parts[name]]

    @property
    def has_same_tokens(self) -> bool:
        """Whether both have the same tokens at the same numbers."""
        return self.own.tokens == self.family.tokens

    def check_words(self) -> None:
        """Raise Incompatible if a number stands for two tokens, or the vocabularies differ."""
        others = [
            f"{number} is {word!r}, the family's seed has {self.family.words[number]!r}"
            for number, word in sorted(self.own.words.items())
            if self.family.words.get(number, word) != word
        ]
        if others:
            raise _refused(f"has other words for {len(others)} numbers", others)
        moved = [
            f"{token!r} is {number}, the family's seed has it at {self.family.tokens[token]}"
            for token, number in self.own.tokens.items()
            if self.family.tokens.get(token, number) != number
        ]
        if moved:
            raise _refused(f"has {len(moved)} tokens at other numbers", moved)
        for name, one, other in (
            ("more", self.own, self.family),
            ("fewer", self.family, self.own),
        ):
            strange = [
                repr(token)
                for token in one.vocabulary
                if token not in other.tokens and token not in one.added
            ]
            if strange:
                detail = f"has {len(strange)} tokens {name} in its vocabulary than the family's"
                raise _refused(detail, strange)

    def check_parts(self) -> None:
        """Raise Incompatible if a text can have other tokens."""
        if self.other_parts:
            names = ["merges or settings" if n == "model" else n for n in self.other_parts]
            raise _refused("cuts texts in another way than the family's", names)


def compare(own: bytes, family: bytes) -> Comparison:
    """Compare two `tokenizer.json`. Raises InvalidCheckpoint if one is no tokenizer."""
    return Comparison(Meaning.of(own), Meaning.of(family))


def _plain(part: Any) -> Any:
    """Return a part with its defaults, and without the fields that say nothing."""
    if isinstance(part, list):
        return [_plain(value) for value in part]
    if not isinstance(part, dict):
        return part
    filled = DEFAULTS.get(str(part.get("type")), {}) | part
    return {name: _plain(value) for name, value in filled.items() if value not in (None, False, "")}


def _refused(detail: str, examples: list[str]) -> Incompatible:
    more = ", ..." if len(examples) > MAX_NAMED else ""
    detail = f"{detail}: {', '.join(examples[:MAX_NAMED])}{more}"
    return Incompatible(f"{TOKENIZER} {detail}", problems=(Problem(AT, detail),))
