"""The classifier names the domain of texts that it has not read."""

from tests import tiny
from tests.benchmarks.claims.text_classifier import TextClassifier

EXPERTS = (1, 2, 3)


def test_held_out_texts_are_named() -> None:
    domains = {f"expert-{n}": tiny.sample_documents(expert=n) for n in EXPERTS}
    classifier = TextClassifier(domains)
    for name, documents in domains.items():
        held_out = [document.text for document in documents if document.split == "held-out"]
        assert {classifier.domain(text) for text in held_out} == {name}


def test_a_trigram_that_a_domain_lacks_does_not_decide_alone() -> None:
    domains = {f"expert-{n}": tiny.sample_documents(expert=n) for n in EXPERTS}
    [text, *_] = [d.text for d in domains["expert-1"] if d.split == "held-out"]
    assert TextClassifier(domains).domain(f"{text} ÄÖÜ") == "expert-1"
