"""HTML manuals become text without navigation."""

from assembler.demo.corpora.html import plain_text


def test_navigation_scripts_and_head_are_dropped() -> None:
    page = (
        "<html><head><title>T</title></head><body><div class=navheader><div>Prev</div>Up</div>"
        "<script>x()</script><h1>Chapter</h1><p>One &amp;\n two.</p><pre>a\n  b</pre>"
        "<nav>Next</nav>end</body>"
    )
    assert plain_text(page) == "Chapter\n\nOne & two.\n\na\n  b\nend"
