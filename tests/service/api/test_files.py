"""Checkpoints are downloaded as ordinary files, whole or in ranges."""

import hashlib

import pytest
from starlette.testclient import TestClient

from registry.blobs.blobs import BlobStore
from registry.catalog import experts
from registry.checkpoints.safetensors_header import parse_header
from registry.database import db
from registry.database.tables import VersionState
from tests import tiny
from tests.assembler import rows

FILES = "/api/v1/experts/expert-1/versions/1/files"
TENSORS = f"{FILES}/model.safetensors"


@pytest.fixture(autouse=True)
def _expert(client: TestClient, store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_expert(session, store, rows.add_family(session, store), number=1)


def test_the_checkpoint_comes_back(client: TestClient) -> None:
    data = client.get(TENSORS).content
    header = data[8 : 8 + int.from_bytes(data[:8], "little")].decode()
    spans = parse_header(header, file_size=len(data), file="model.safetensors")
    assert {n: data[s.start : s.end] for n, s in spans.items()} == tiny.tensors(expert=1)
    assert client.get(f"{FILES}/config.json").json() == tiny.config()
    tokenizer = client.get(f"{FILES}/tokenizer.json").content
    assert tokenizer == tiny.tokenizer_files()["tokenizer.json"]


def test_a_seed_comes_back(client: TestClient) -> None:
    seed = client.get("/api/v1/families/tiny/seed").json()
    files = {file["name"] for file in client.get("/api/v1/families/tiny/files").json()["data"]}
    assert files == {"config.json", "model.safetensors", *tiny.tokenizer_files()}
    tokenizer = client.get("/api/v1/families/tiny/files/tokenizer.json").content
    assert hashlib.sha256(tokenizer).hexdigest() == seed["files"]["tokenizer.json"]
    assert seed["tensors"]["model.norm.weight"]["dtype"] == "BF16"
    assert client.get("/api/v1/families/none/seed").status_code == 404


def test_the_list_has_names_and_sizes(client: TestClient) -> None:
    listing = client.get(FILES).json()
    sizes = {file["name"]: file["size"] for file in listing["data"]}
    assert set(sizes) == {"config.json", "model.safetensors", *tiny.tokenizer_files()}
    for name, size in sizes.items():
        assert len(client.get(f"{FILES}/{name}").content) == size


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [("0-9", 0, 10), ("5000-70000", 5000, 70001), ("80000-", 80000, None), ("-64", -64, None)],
)
def test_a_range_is_returned(client: TestClient, wanted: str, start: int, end: int | None) -> None:
    whole = client.get(TENSORS).content
    part = client.get(TENSORS, headers={"Range": f"bytes={wanted}"})
    assert part.status_code == 206
    assert part.content == whole[start:end]
    first = start % len(whole)
    last = first + len(part.content) - 1
    assert part.headers["content-range"] == f"bytes {first}-{last}/{len(whole)}"


def test_a_wrong_range_is_ignored_or_refused(client: TestClient) -> None:
    size = len(client.get(TENSORS).content)
    for wanted in (f"bytes={size}-", "bytes=9-3", "bytes=-0"):
        answer = client.get(TENSORS, headers={"Range": wanted})
        assert answer.status_code == 416
        assert answer.headers["content-range"] == f"bytes */{size}"
    for ignored in ("bytes=-", "lines=1-2", "bytes=0-1,5-6", f"bytes={'9' * 5000}-"):
        assert client.get(TENSORS, headers={"Range": ignored}).status_code == 200


def test_a_file_with_a_known_etag_is_not_sent_again(client: TestClient) -> None:
    etag = client.get(TENSORS).headers["etag"]
    assert client.get(TENSORS, headers={"If-None-Match": etag}).status_code == 304
    changed = client.get(TENSORS, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert changed.status_code == 200


def test_head_returns_the_size(client: TestClient) -> None:
    answer = client.head(TENSORS)
    assert answer.content == b""
    assert int(answer.headers["content-length"]) == len(client.get(TENSORS).content)


@pytest.mark.parametrize(
    "file", ["passwd", "..%2f..%2fapi-key", "%2e%2e", "%2fetc%2fpasswd", "documents.jsonl"]
)
def test_other_names_are_not_found(client: TestClient, file: str) -> None:
    assert client.get(f"{FILES}/{file}").status_code == 404


def test_an_unfinished_upload_cannot_be_downloaded(client: TestClient) -> None:
    with db.transaction() as session:
        version = experts.find_version(session, expert="expert-1", number=1)
        version.state = VersionState.UPLOADING
    assert client.get(TENSORS).status_code == 409


def test_the_document_says_that_files_are_bytes(client: TestClient) -> None:
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    answers = {
        path: routes["get"]["responses"] for path, routes in paths.items() if "/{file}" in path
    }
    assert len(answers) == 4
    for responses in answers.values():
        assert [*responses["200"]["content"]] == ["application/octet-stream"]
        assert {"206", "304", "416"} <= responses.keys()
