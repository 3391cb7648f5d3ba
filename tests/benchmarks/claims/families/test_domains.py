"""Tests of the benchmark's readers, on small files in the folders of the packages."""

from pathlib import Path

from tests.assembler.demo.corpora.test_readers import write
from tests.benchmarks.claims.families import domains
from tests.benchmarks.claims.families.domains import ALL_DOMAINS


def test_there_are_sixteen_domains_with_different_names() -> None:
    assert len({domain.name for domain in ALL_DOMAINS}) == len(ALL_DOMAINS) == 16


def test_closing_sections_are_cut(tmp_path: Path) -> None:
    page = ".TH LS 1\n.SH NAZWA\nls - pliki\n.SH ZGŁASZANIE BŁĘDÓW\nGNU\n.SH ZOBACZ TAKŻE\ndir\n"
    write(tmp_path / "usr/share/man/pl/man1/ls.1.gz", page)
    ((_, text),) = domains.manual_pages(tmp_path)
    assert text == "NAZWA\n\nls - pliki\n\n"


def test_dictionary_entries_begin_at_the_margin(tmp_path: Path) -> None:
    entry = "absolute\n    adj 1: perfect or complete or pure\n"
    write(tmp_path / "usr/share/dictd/wn.dict.dz", entry * 100)
    name, text = next(domains.dictionary(tmp_path))
    assert name == "wn.dict.dz/0"
    assert all(entry.startswith("absolute") for entry in text.split("\n\n"))


def test_rust_has_no_tests(tmp_path: Path) -> None:
    library = tmp_path / "usr/src/rustc-1.63.0/library/core"
    write(library / "src/option.rs", "pub enum Option<T> {}\n")
    write(library / "src/option/tests.rs", "#[test]\n")
    write(library / "tests/option.rs", "#[test]\n")
    ((name, text),) = domains.rust_sources(tmp_path)
    assert name.endswith("src/option.rs")
    assert text == "pub enum Option<T> {}\n"


def test_lisp_begins_after_its_license(tmp_path: Path) -> None:
    lisp = tmp_path / "usr/share/emacs/28.2/lisp"
    write(lisp / "subr.el.gz", ";;; subr.el\n;; Copyright\n;;; Commentary:\n(defun f ())\n")
    write(lisp / "loaddefs.el.gz", ";;; automatically generated\n;;; Code:\n(autoload 'f)\n")
    ((_, text),) = domains.emacs_lisp(tmp_path)
    assert text == ";;; Commentary:\n(defun f ())\n"
