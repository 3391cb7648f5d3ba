"""Tests that the marked blocks of pages run without an error."""

from pathlib import Path

import psutil
import pytest

from tests.docs import pages, sequences

LONG_SECONDS, SHORT_SECONDS = 3600.0, 300.0


def run_pages() -> list[Path]:
    return [page for page in pages.pages() if sequences.marked(page)]


def is_long(page: Path) -> bool:
    return any(block.run == "long" for block in sequences.marked(page))


def parameters(*, long: bool) -> list[Path]:
    return [page for page in run_pages() if is_long(page) == long]


@pytest.mark.long
@pytest.mark.parametrize("page", parameters(long=True), ids=pages.name)
def test_the_blocks_of_a_long_page_run(page: Path, tmp_path: Path) -> None:
    sequences.run(sequences.marked(page), tmp_path, seconds=LONG_SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("page", parameters(long=False), ids=pages.name)
def test_the_blocks_of_a_short_page_run(page: Path, tmp_path: Path) -> None:
    sequences.run(sequences.marked(page), tmp_path, seconds=SHORT_SECONDS)


def page_of(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text)
    return page


def test_marked_blocks_run_in_one_shell_and_in_order(tmp_path: Path) -> None:
    page = page_of(
        tmp_path,
        "<!-- run -->\n```sh\nexport WORD=first\n```\n\n```sh\nexport WORD=unmarked\n```\n\n"
        '<!-- run -->\n```python\nimport os\nprint(os.environ["WORD"], "second")\n```\n',
    )
    printed = sequences.run(sequences.marked(page), tmp_path, seconds=SHORT_SECONDS)
    assert printed == "first second\n"


def test_the_first_command_that_fails_ends_the_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, "<!-- run -->\n```sh\necho before\nfalse\necho after\n```\n")
    with pytest.raises(AssertionError, match=r"status 1:\nbefore\n$"):
        sequences.run(sequences.marked(page), tmp_path, seconds=SHORT_SECONDS)


def test_nexusmix_on_a_page_runs_the_tested_command_line(tmp_path: Path) -> None:
    page = page_of(tmp_path, "<!-- run -->\n```sh\n./nexusmix schema policy\n```\n")
    printed = sequences.run(sequences.marked(page), tmp_path, seconds=SHORT_SECONDS)
    assert '"title": "Policy"' in printed


def test_a_block_in_the_background_is_awaited_and_ended(tmp_path: Path) -> None:
    server = (
        "import http.server, os, pathlib, sys\n"
        "pathlib.Path('pid').write_text(str(os.getpid()))\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(200); self.end_headers()\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()\n"
    )
    (tmp_path / "server.py").write_text(server)
    page = page_of(
        tmp_path,
        "<!-- run: background -->\n```sh\nexec python server.py 8421\n```\n\n"
        "<!-- run -->\n```sh\ncurl --silent --fail http://127.0.0.1:8421/ && echo answered\n```\n",
    )
    printed = sequences.run(sequences.marked(page), tmp_path, seconds=SHORT_SECONDS)
    assert printed.endswith("answered\n")
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
