"""A rival of routers: a classifier names the domain of a whole text, and one expert reads it.

It is a naive Bayes classifier on trigrams of characters of each expert's training documents. It has
an advantage over every router: it reads the whole text before the expert predicts its first token.
No token of a text goes to another expert, and no expert is blended with the seed.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from registry.catalog.documents import Document
from tests.benchmarks.claims.families.windows import GENERAL
from tests.benchmarks.claims.mixes import Mixes
from tests.benchmarks.claims.page import figures

CHARACTERS = 3
# Added to every count, so that a trigram that a domain lacks does not decide alone.
SMOOTHING = 0.5


class TextClassifier:
    """Names the domain of a text by the frequencies of trigrams in training documents."""

    def __init__(self, documents: Mapping[str, Sequence[Document]]) -> None:
        self._counts = {
            name: _trigrams([document.text for document in own if document.split == "train"])
            for name, own in documents.items()
        }

    def domain(self, text: str) -> str:
        """Return the domain whose documents make the text likeliest; all are as likely before."""
        found = _trigrams([text])
        return max(self._counts, key=lambda name: self._log_likelihood(name, found))

    def _log_likelihood(self, name: str, found: Counter[str]) -> float:
        counts = self._counts[name]
        total = counts.total() + SMOOTHING * self._num_kinds
        return sum(
            number * math.log((counts[trigram] + SMOOTHING) / total)
            for trigram, number in found.items()
        )

    @cached_property
    def _num_kinds(self) -> int:
        return len(set().union(*self._counts.values()))


def measure(mixes: Mixes, domains: Sequence[str]) -> dict[str, Any]:
    """Return the figures on `domains` of the experts that the classifier chooses, by window."""
    classifier = TextClassifier(mixes.family.documents)
    choices = {
        name: [classifier.domain(text) for text in mixes.texts(name)]
        for name in (*domains, GENERAL)
    }
    return figures.of_choices(mixes, choices)


def _trigrams(texts: Sequence[str]) -> Counter[str]:
    counts = Counter[str]()
    for text in texts:
        counts.update(text[at : at + CHARACTERS] for at in range(len(text) - CHARACTERS + 1))
    return counts
