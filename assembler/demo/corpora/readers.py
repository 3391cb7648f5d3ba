"""Raw texts of each corpus: where its files lie below the unpacked package, and how they read."""

import gzip
import re
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from assembler.demo.corpora import html, manpages

Texts = Iterator[tuple[str, str]]

# Statements, or dictionary entries, that lie side by side resemble each other: one document.
_GROUP_CHARACTERS = 3_000


def manual_pages(folder: Path) -> Texts:
    for file in _files(folder, "usr/share/man/**/*.gz"):
        yield _name(file, folder), manpages.plain_text(_read(file))


def html_pages(folder: Path) -> Texts:
    """HTML manuals; release notes are left out, they are lists of names."""
    for file in _files(folder, "usr/share/**/doc/**/*.html"):
        if not file.name.startswith("release"):
            yield _name(file, folder), html.plain_text(_read(file))


def markdown(folder: Path) -> Texts:
    """Essays in Markdown, a document per section so that long essays give several."""
    for file in _files(folder, "usr/share/doc/**/*.md*"):
        yield from _numbered(_name(file, folder), re.split(r"\n(?=#+ )", _read(file)))


def plain_old_documentation(folder: Path) -> Texts:
    """Perl's POD, from the first heading on, without the histories of its releases."""
    for file in _files(folder, "usr/share/perl/**/*.pod"):
        if not re.fullmatch(r"perl(5\d+delta|hist|toc|uniprops)\.pod", file.name):
            text = re.sub(r"[BCFILSX]<+\s?([^<>]*?)\s?>+", r"\1", _read(file))
            yield file.name, re.sub(r"^=\w+[ \t]*", "", text, flags=re.MULTILINE)


def c_headers(folder: Path) -> Texts:
    for file in _files(folder, "usr/include/**/*.h"):
        yield _name(file, folder), re.sub(r"\A(\s*/\*.*?\*/)+", "", _read(file), flags=re.DOTALL)


def go_sources(folder: Path) -> Texts:
    """Go's standard library without tests and generated tables, from the package clause on."""
    for file in _files(folder, "usr/share/go-*/src/**/*.go"):
        text = _read(file)
        if not file.name.endswith("_test.go") and "DO NOT EDIT" not in text[:1000]:
            yield _name(file, folder), re.sub(r"\A.*?(?=^package )", "", text, flags=re.S | re.M)


def bilingual_dictionary(folder: Path) -> Texts:
    """FreeDict: a word with its pronunciation, translations and examples, grouped."""
    for file in _files(folder, "usr/share/dictd/*.dict.dz"):
        entries = re.split(r"\n(?=\S+[^\n]* /[^/\n]+/\n)", _read(file))
        yield from grouped(file.name, entries)


def python_modules(_: Path) -> Texts:
    """The standard library of the Python that runs, without its tests and character tables."""
    library = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "encodings", "lib2to3"}
    for file in _files(library, "**/*.py"):
        if skipped.isdisjoint(file.relative_to(library).parts):
            yield _name(file, library), _read(file)


def metamath(folder: Path) -> Texts:
    """set.mm: statements with comment and compressed proof, in groups of neighbors."""
    text = _read(next(_files(folder, "usr/share/metamath/**/set.mm")))
    statements = re.split(r"\n(?= *\$\( )", text)
    yield from grouped("set.mm", statements)


def dictionary(folder: Path) -> Texts:
    """GCIDE: entries begin at the margin; marks that name the source edition are dropped."""
    text = _read(next(_files(folder, "usr/share/dictd/gcide.dict.dz")))
    text = re.sub(r"\n *\[(1913 Webster|PJC|WordNet 1\.5|Webster 1913 Suppl\.)[^\]]*\]", "", text)
    entries = re.split(r"\n(?=[^\s])", text)
    yield from grouped("gcide", entries)


def grouped(name: str, parts: Iterable[str]) -> Texts:
    """Neighboring parts as one text each time that they are long enough; a rest is dropped."""
    group: list[str] = []
    number = 0
    for part in parts:
        group.append(part.strip("\n"))
        if sum(map(len, group)) >= _GROUP_CHARACTERS:
            yield f"{name}/{number}", "\n\n".join(group)
            group, number = [], number + 1


def _numbered(name: str, parts: Iterable[str]) -> Texts:
    for number, part in enumerate(parts):
        yield f"{name}/{number}", part


def _files(folder: Path, pattern: str) -> Iterator[Path]:
    return (file for file in sorted(folder.glob(pattern)) if file.is_file())


def _name(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder))


def _read(file: Path) -> str:
    data = file.read_bytes()
    if file.suffix in (".gz", ".dz"):
        data = gzip.decompress(data)
    return data.decode(errors="replace")
