"""Convert HTML manuals to plain text, without scripts and navigation."""

import re
from html.parser import HTMLParser

_BLOCKS = {
    "p", "div", "li", "dt", "dd", "tr", "br", "pre", "table", "ul", "ol", "dl", "section", "title",
    "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "hr",
}  # fmt: skip
_SKIPPED = {"script", "style", "nav", "header", "footer", "head"}
_NAVIGATION = re.compile(r"nav(igation|header|footer)?\b|header|footer|toc|TOC|contents")
_VOID = {"br", "hr", "img", "input", "link", "meta", "col", "area", "base", "embed", "wbr"}


def plain_text(source: str) -> str:
    """Return the text of a page, its blocks separated by line breaks.

    Elements whose class or id names navigation are dropped.
    """
    parser = _Text()
    parser.feed(source)
    parser.close()
    text = "".join(parser.parts)
    return re.sub(r"\n\s*\n+", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip()


class _Text(HTMLParser):
    """Collects the text of a page in `parts`."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.skipped: list[str] = []
        self.preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS:
            self.parts.append("\n")
        if tag in _VOID:
            return
        label = " ".join(value or "" for name, value in attrs if name in ("class", "id"))
        if self.skipped:
            if tag == self.skipped[-1]:
                self.skipped.append(tag)
        elif tag in _SKIPPED or _NAVIGATION.fullmatch(label):
            self.skipped.append(tag)
        self.preformatted += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if self.skipped and tag == self.skipped[-1]:
            self.skipped.pop()
        if tag in _BLOCKS:
            self.parts.append("\n")
        self.preformatted -= tag == "pre"

    def handle_data(self, data: str) -> None:
        if not self.skipped:
            self.parts.append(data if self.preformatted > 0 else re.sub(r"\s+", " ", data))
