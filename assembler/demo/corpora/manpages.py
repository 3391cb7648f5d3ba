"""Convert manual pages (the `man` macros of roff) to plain paragraphs.

Headings, paragraphs and examples are kept, roff requests are dropped. Closing sections about
authors, bugs, copyright and translators are dropped too: they repeat on every page, and would make
perplexity better than it is.
"""

import re

# Headings of the closing sections in German, French, Spanish, Russian and English.
BOILERPLATE = re.compile(
    r"""
    AUTOR|AUTOREN|COPYRIGHT|FEHLER\ MELDEN|SIEHE\ AUCH|ÜBERSETZUNG|DANKSAGUNGEN|KOLOPHON|HOMEPAGE
    |VERFÜGBARKEIT|WARNHINWEIS|TEXI\ DOKUMENTATION\ ANZEIGEN
    |AUTEURS?|SIGNALER\ DES\ BOGUES|SIGNALEMENTS?\ DE\ BOGUES|VOIR\ AUSSI|TRADUCTION|DISPONIBILITÉ
    |PAGE\ D'ACCUEIL|AVERTISSEMENTS?
    |AUTORES|INFORMAR\ DE\ ERRORES|VÉASE\ TAMBIÉN|TRADUCCIÓN|DISPONIBILIDAD|NOTA\ DE\ ADVERTENCIA
    |MARCAS\ REGISTRADAS|VISUALIZANDO\ EL\ .*
    |АВТОРЫ?|ИНФОРМАЦИЯ\ ОБ\ ОШИБКАХ|АВТОРСКИЕ\ ПРАВА|СМ\.\ ТАКЖЕ|ПЕРЕВОД
    |AUTHORS?|REPORTING\ BUGS|SEE\ ALSO|COLOPHON|AVAILABILITY
    """,
    re.VERBOSE,
)

_CHARACTERS = {
    "(aq": "'", "(dq": '"', "(co": "©", "(bu": "•", "(em": "—", "(en": "–", "(lq": "“", "(rq": "”",
    "(oq": "‘", "(cq": "’", "(ha": "^", "(ti": "~", "(rs": "\\", "(mi": "-", "(hy": "-", "(ga": "`",
    "-": "-", "e": "\\", " ": " ", "~": " ", "0": " ", "'": "'", "`": "`", ".": ".", "\\": "\\",
}  # fmt: skip
_ESCAPE = re.compile(
    r"\\(?:f(?:\[[^\]]*\]|\(..|.)|s[-+]?\d+|[*n](?:\[[^\]]*\]|\(..|.)|[mMZhvw]'[^']*'"
    r"|m\[[^\]]*\]|\[(?P<name>[^\]]*)\]|(?P<character>\(..|.)|$)"
)
_FONT_MACROS = {"B", "I", "SM", "SB", "BR", "BI", "IR", "IB", "RB", "RI"}
_PARAGRAPH_MACROS = {"PP", "P", "LP", "HP", "TP", "IP", "TQ", "sp", "RS", "RE", "br"}
_SKIPPED_BLOCKS = {"TS": ".TE", "de": "..", "ig": "..", "de1": ".."}


def plain_text(source: str) -> str:
    """Return the text of a page, with empty lines between paragraphs; "" for `mdoc` pages."""
    if re.search(r"^\.Dd", source, re.MULTILINE):
        return ""
    page = _Page()
    block_end = None
    for line in source.splitlines():
        if block_end is not None:
            block_end = None if line.startswith(block_end) else block_end
        elif line[:1] in (".", "'"):
            block_end = page.request(line[1:].strip())
        else:
            page.text(line)
    return page.finish()


class _Page:
    """The paragraphs collected so far, and the state of the section that is read."""

    def __init__(self) -> None:
        self.paragraphs: list[str] = []
        self.lines: list[str] = []
        self.verbatim = False
        self.is_kept = True

    def request(self, line: str) -> str | None:
        """Read a roff request. If it opens a skipped block, return the line that ends the block."""
        name, _, rest = line.partition(" ")
        arguments = [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|(\S+)', rest)]
        if name in ("SH", "SS"):
            self._break()
            heading = _unescape(" ".join(arguments))
            if name == "SH":
                self.is_kept = BOILERPLATE.fullmatch(heading.strip().upper()) is None
            self.text(heading)
            self._break()
        elif name in _FONT_MACROS:
            # Macros of two letters change the font between arguments and add no space.
            self.text(("" if len(name) == 2 and name not in ("SM", "SB") else " ").join(arguments))
        elif name in _PARAGRAPH_MACROS:
            self._break()
            if name == "IP" and arguments:
                self.text(arguments[0])
        elif name in ("nf", "EX", "fi", "EE"):
            self._break()
            self.verbatim = name in ("nf", "EX")
        return _SKIPPED_BLOCKS.get(name)

    def text(self, line: str) -> None:
        """Add a line to the current paragraph."""
        self.lines.append(_unescape(line).rstrip())

    def finish(self) -> str:
        """Return the text of all paragraphs."""
        self._break()
        return "\n\n".join(self.paragraphs)

    def _break(self) -> None:
        joined = ("\n" if self.verbatim else " ").join(line for line in self.lines if line)
        if joined.strip() and self.is_kept:
            self.paragraphs.append(joined.strip("\n") if self.verbatim else joined.strip())
        self.lines = []


def _unescape(line: str) -> str:
    line = re.sub(r'\\".*', "", line)
    return _ESCAPE.sub(
        lambda m: _CHARACTERS.get("(" + m["name"] if m["name"] else m["character"] or "", ""), line
    )
