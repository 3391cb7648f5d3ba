"""Define ten more public domains for experts, most of them close to a domain of the product.

With the six of the product there are sixteen. The ten are manual pages in three more languages, a
second bilingual dictionary, two English dictionaries, two more programming languages, and two more
manuals in HTML. So a router has to separate domains that are much alike.
"""

import gzip
import re
from pathlib import Path

from assembler.demo.corpora import readers
from assembler.demo.corpora.domains import EXPERT_DOMAINS, FURTHER_DOMAINS, Domain
from assembler.demo.corpora.readers import Texts

# Headings in Polish, Italian and Dutch. All pages say the same after these headings.
_CLOSING = re.compile(
    r"""
    ^(?:AUTOR|AUTORZY|ZGŁASZANIE\ BŁĘDÓW|PRAWA\ AUTORSKIE|ZOBACZ\ (?:TAKŻE|RÓWNIEŻ)|TŁUMACZENIE
    |AUTORE|AUTORI|SEGNALAZIONE\ (?:DEI\ )?BUG|VEDERE\ ANCHE|TRADUZIONE
    |AUTEURS?|BUGS\ MELDEN|RAPPORTEREN\ VAN\ BUGS|ZIE\ OOK|VERTALING
    |COPYRIGHT|KOLOFON)$
    """,
    re.VERBOSE | re.MULTILINE | re.IGNORECASE,
)


def manual_pages(folder: Path) -> Texts:
    """Yield manual pages without their closing sections."""
    for name, text in readers.manual_pages(folder):
        yield name, _CLOSING.split(text, maxsplit=1)[0]


def dictionary(folder: Path) -> Texts:
    """Yield grouped entries of a dictd dictionary; its entries begin at the margin."""
    for file in sorted(folder.glob("usr/share/dictd/*.dict.dz")):
        text = gzip.decompress(file.read_bytes()).decode(errors="replace")
        yield from readers.group(file.name, re.split(r"\n(?=\S)", text))


def rust_sources(folder: Path) -> Texts:
    """Yield the sources of Rust's standard library without tests."""
    for file in sorted(folder.glob("usr/src/rustc-*/library/**/*.rs")):
        if {"tests", "benches"}.isdisjoint(file.parts) and file.stem != "tests":
            yield str(file.relative_to(folder)), file.read_text(errors="replace")


def emacs_lisp(folder: Path) -> Texts:
    """Yield the Lisp sources of Emacs from their commentary or code on; skip generated tables."""
    for file in sorted(folder.glob("usr/share/emacs/*/lisp/**/*.el.gz")):
        text = gzip.decompress(file.read_bytes()).decode(errors="replace")
        start = re.search(r"^;;; (Commentary|Code):", text, re.MULTILINE)
        if start is not None and "generated" not in text[: start.start()].lower():
            yield str(file.relative_to(folder)), text[start.start() :]


MORE_DOMAINS = (
    Domain(
        "polish-manuals", "Linux manual pages in Polish", "GPL-3.0-or-later",
        "manpages-pl", manual_pages,
    ),
    Domain(
        "italian-manuals", "Linux manual pages in Italian", "GPL-3.0-or-later",
        "manpages-it", manual_pages,
    ),
    Domain(
        "dutch-manuals", "Linux manual pages in Dutch", "GPL-3.0-or-later",
        "manpages-nl", manual_pages,
    ),
    Domain(
        "english-french", "FreeDict's dictionary from English to French", "GPL-2.0-or-later",
        "dict-freedict-eng-fra", readers.bilingual_dictionary,
    ),
    Domain(
        "wordnet", "The dictionary of WordNet", "LicenseRef-scancode-wordnet",
        "dict-wn", dictionary,
    ),
    Domain(
        "computing", "The Free On-line Dictionary of Computing", "GFDL-1.1-no-invariants-or-later",
        "dict-foldoc", dictionary,
    ),
    Domain(
        "rust", "The standard library of Rust", "MIT OR Apache-2.0",
        "rust-src", rust_sources,
    ),
    Domain(
        "emacs-lisp", "The Lisp that Emacs is written in", "GPL-3.0-or-later",
        "emacs-el", emacs_lisp,
    ),
    Domain(
        "sqlite", "The documentation of SQLite", "blessing",
        "sqlite3-doc", readers.html_pages,
    ),
    Domain(
        "octave", "The manual of Octave", "GPL-3.0-or-later",
        "octave-doc", readers.html_pages,
    ),
)  # fmt: skip

ALL_DOMAINS = EXPERT_DOMAINS + FURTHER_DOMAINS + MORE_DOMAINS
# No default of SmolLM2's mixes was chosen on these.
SEALED_DOMAINS = ALL_DOMAINS[8:]
