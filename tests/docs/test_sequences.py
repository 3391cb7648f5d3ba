"""Tests that the marked blocks of pages run without an error."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from registry.database.postgres import EmbeddedPostgres
from tests import ray_cluster, seaweed
from tests.docs import instance, pages, sequences

LONG_SECONDS, SHORT_SECONDS = 3600.0, 600.0
SHELLS = ("sh", "bash", "console")
HOW_TO, OPERATIONS = pages.SITE / "how-to", pages.SITE / "operations"
# Pages for which a service runs before their first block.
SERVED = (HOW_TO / "application.md", HOW_TO / "mix-builder.md", HOW_TO / "model-owner.md")
# Pages for which the data folder has the tiny family and its mix.
PREPARED = (
    *SERVED,
    HOW_TO / "training.md",
    HOW_TO / "operator.md",
    OPERATIONS / "backup.md",
)


def run_pages() -> list[Path]:
    return [page for page in pages.pages() if sequences.marked(page)]


def is_long(page: Path) -> bool:
    return any(block.run == "long" for block in sequences.marked(page))


def parameters(*, long: bool) -> list[Path]:
    return [page for page in run_pages() if is_long(page) == long]


@pytest.fixture(scope="module")
def prepared(servers: Path) -> Path:
    """Return a data folder with the tiny family; tests copy it."""
    home = servers / "prepared"
    instance.make(home)
    return home


@pytest.fixture
def homes(servers: Path, tmp_path: Path) -> Iterator[Path]:
    """Yield a new folder outside pytest's own; the account of the database reaches it."""
    folder = servers / tmp_path.name
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("page", pages.pages(), ids=pages.name)
def test_each_block_of_a_page_is_run_or_says_why_not(page: Path) -> None:
    unmarked = [
        block.line
        for block in pages.blocks(page)
        if block.language in SHELLS and block.run is None and block.not_run is None
    ]
    assert not unmarked


@pytest.mark.long
@pytest.mark.parametrize("page", parameters(long=True), ids=pages.name)
def test_the_blocks_of_a_long_page_run(
    page: Path, tmp_path: Path, homes: Path, request: pytest.FixtureRequest
) -> None:
    run(page, tmp_path, homes, request, seconds=LONG_SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("page", parameters(long=False), ids=pages.name)
def test_the_blocks_of_a_short_page_run(
    page: Path, tmp_path: Path, homes: Path, request: pytest.FixtureRequest
) -> None:
    run(page, tmp_path, homes, request, seconds=SHORT_SECONDS)


def run(
    page: Path, folder: Path, homes: Path, request: pytest.FixtureRequest, *, seconds: float
) -> None:
    """Run the blocks of a page with what their reader has by then."""
    home = homes / "home"
    blocks = sequences.marked(page)
    if page in PREPARED:
        # As on the page on backups: the database belongs to an account of its own.
        source = request.getfixturevalue("prepared")
        subprocess.run(["cp", "--archive", str(source), str(home)], check=True)
        instance.materials(folder)
    if page == HOW_TO / "mix-builder.md":
        # What a reader has made on the page for model owners.
        instance.checkpoint(folder / "python-expert", expert=instance.EXPERTS["python"])
        instance.checkpoint(folder / "python-expert-2", expert=len(instance.EXPERTS) + 1)
    if page in SERVED:
        blocks = [*sequences.served(), *blocks]
    with surroundings(page, homes) as given:
        sequences.run(
            blocks,
            folder,
            seconds=seconds,
            home=home,
            replacements=given.replacements,
            environment=given.environment,
        )


@dataclass(frozen=True)
class Surroundings:
    """What a page's reader has outside nexusmix.

    `replacements` are texts in place of the page's placeholders, `environment` has variables.
    """

    replacements: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def surroundings(page: Path, folder: Path) -> Iterator[Surroundings]:
    """Run the servers that a page takes for granted."""
    if page == HOW_TO / "operator.md":
        with EmbeddedPostgres(folder / "own") as server:
            address = "postgresql+psycopg://nexusmix:PASSWORD@HOST/nexusmix"
            yield Surroundings({address: server.url})
    elif page == OPERATIONS / "s3.md":
        with seaweed.SeaweedServer(folder / "seaweed") as store:
            replacements = {
                "http://127.0.0.1:8333": store.endpoint_url,
                "ID=KEY": f"ID={seaweed.KEY}",
                "KEY=SECRET": f"KEY={seaweed.SECRET}",
            }
            yield Surroundings(replacements)
    elif page == OPERATIONS / "ray.md":
        with ray_cluster.private_network():
            yield Surroundings({"HEAD:6379": "127.0.0.1:6379"}, {"RAY_AUTH_MODE": "disabled"})
    else:
        yield Surroundings()


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


def test_the_next_block_in_the_background_takes_the_place_of_the_last(tmp_path: Path) -> None:
    server = (
        "from http.server import BaseHTTPRequestHandler, HTTPServer\n"
        "import sys\n"
        "class Handler(BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200)\n"
        "        self.end_headers()\n"
        "        self.wfile.write(sys.argv[2].encode())\n"
        "HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()\n"
    )
    (tmp_path / "server.py").write_text(server)
    start = "<!-- run: background -->\n```sh\npython server.py 8421 {}\n```\n\n"
    ask = "<!-- run -->\n```sh\ncurl --silent http://127.0.0.1:8421/\n```\n\n"
    page = page_of(tmp_path, start.format("first") + start.format("second") + ask)
    printed = sequences.run(sequences.marked(page), tmp_path, seconds=SHORT_SECONDS)
    assert printed.endswith("second")


@pytest.mark.parametrize("status", [0, 1])
def test_a_block_that_judges_may_end_either_way(tmp_path: Path, status: int) -> None:
    page = page_of(
        tmp_path,
        f"<!-- run: verdict -->\n```sh\n(exit {status})\n```\n<!-- run -->\n```sh\necho on\n```\n",
    )
    assert "on" in sequences.run(sequences.marked(page), tmp_path / "run", seconds=60)


def test_a_block_that_judges_must_not_end_with_an_error(tmp_path: Path) -> None:
    page = page_of(tmp_path, "<!-- run: verdict -->\n```sh\n(exit 2)\n```\n")
    with pytest.raises(AssertionError, match="status"):
        sequences.run(sequences.marked(page), tmp_path / "run", seconds=60)


def test_a_block_that_should_fail_fails(tmp_path: Path) -> None:
    page = page_of(tmp_path, "<!-- run: fails -->\n```sh\nfalse\n```\n")
    sequences.run(sequences.marked(page), tmp_path, seconds=SHORT_SECONDS)


def test_a_block_that_should_fail_and_does_not_ends_the_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, "<!-- run: fails -->\n```sh\ntrue\n```\n")
    with pytest.raises(AssertionError, match="did not fail"):
        sequences.run(sequences.marked(page), tmp_path, seconds=SHORT_SECONDS)
