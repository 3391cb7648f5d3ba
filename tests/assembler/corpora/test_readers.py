"""Readers on small files laid out as in the packages."""

import gzip
from pathlib import Path

from assembler.corpora import readers


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix in (".gz", ".dz") else data)


def test_dictionary_entries_are_grouped_without_edition_marks(tmp_path: Path) -> None:
    entry = "Word \\Word\\, n.\n   A unit of language.\n   [1913 Webster]\n\n"
    write(tmp_path / "usr/share/dictd/gcide.dict.dz", entry * 170)
    groups = list(readers.dictionary(tmp_path))
    assert [name for name, _ in groups] == ["gcide/0", "gcide/1"]
    assert all("Webster" not in text and text.startswith("Word") for _, text in groups)


def test_metamath_is_cut_before_statements(tmp_path: Path) -> None:
    statement = "  $( A comment. $)\n  id $p |- x $= a b c $.\n"
    write(tmp_path / "usr/share/metamath/databases/set.mm", statement * 100)
    groups = list(readers.metamath(tmp_path))
    assert len(groups) == 1
    assert groups[0][1].count("$p") == groups[0][1].count("A comment")


def test_pod_marks_are_removed(tmp_path: Path) -> None:
    write(tmp_path / "usr/share/perl/5/pod/perlsub.pod", "=head1 NAME\n\nC<< f >> and B<g>\n")
    assert list(readers.plain_old_documentation(tmp_path)) == [
        ("perlsub.pod", "NAME\n\nf and g\n"),
    ]


def test_the_standard_library_has_no_tests(tmp_path: Path) -> None:
    names = [name for name, _ in readers.python_modules(tmp_path)]
    assert "argparse.py" in names
    assert not any(name.startswith(("test/", "site-packages/")) for name in names)


def test_a_licence_comment_at_the_head_is_cut(tmp_path: Path) -> None:
    write(
        tmp_path / "usr/include/a.h", "/* SPDX */\n/*\n * Copyright\n */\n#define A 1 /* one */\n"
    )
    assert list(readers.c_headers(tmp_path)) == [("usr/include/a.h", "\n#define A 1 /* one */\n")]
