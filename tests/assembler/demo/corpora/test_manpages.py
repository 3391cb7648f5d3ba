"""Manual pages become text: paragraphs stay, requests and closing sections are dropped."""

from assembler.demo.corpora.manpages import plain_text

PAGE = r"""
.\" a comment
.TH LS 1 "2021" "GNU"
.SH BEZEICHNUNG
ls \- Verzeichnisinhalte auflisten
.SH BESCHREIBUNG
Eine \fBZeile\fP, die
weitergeht \(en mit Strich.
.PP
.BR ls (1)
.TP
\fB\-a\fR
alles
.nf
  a
    b
.fi
.SH "FEHLER MELDEN"
An niemanden.
.SH GESCHICHTE
Alt.
.SH ÜBERSETZUNG
Von jemandem.
"""


def test_text_is_kept_in_paragraphs() -> None:
    assert plain_text(PAGE).split("\n\n") == [
        "BEZEICHNUNG",
        "ls - Verzeichnisinhalte auflisten",
        "BESCHREIBUNG",
        "Eine Zeile, die weitergeht – mit Strich.",
        "ls(1)",
        "-a alles",
        "  a\n    b",
        "GESCHICHTE",
        "Alt.",
    ]


def test_tables_and_macro_definitions_are_dropped() -> None:
    page = ".TS\nl l.\na\tb\n.TE\n.de XX\ninner\n..\nkept"
    assert plain_text(page) == "kept"


def test_pages_in_other_macros_are_left_out() -> None:
    assert plain_text(".Dd January 1\n.Sh NAME\nx") == ""
