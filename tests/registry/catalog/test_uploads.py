"""Uploads of real tiny checkpoints, from the announcement to a ready version.

Covers: registry.checkpoints.admission, registry.checkpoints.byte_checks.
"""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.orm import Session

from registry.blobs.blobs import LocalBlobs
from registry.catalog import documents, experts, families, uploads
from registry.checkpoints.admission import Shard
from registry.database.tables import VersionState
from registry.errors import Conflict, Incompatible, InvalidCheckpoint, InvalidInput, NotFound
from tests import tiny
from tests.registry.catalog.uploading import (
    announcement,
    begin_expert,
    begin_family,
    checked,
    complete_expert,
    complete_family,
    digest_of,
    make_ready,
    send,
    send_checkpoint,
    send_documents,
)


@pytest.fixture
def family(session: Session, blobs: LocalBlobs) -> str:
    begin_family(session, blobs)
    send_checkpoint(session, blobs)
    make_ready(session, blobs)
    return "tiny"


def theta_of(value: float) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": value}
    return tiny.config() | {"rope_theta": value, "rope_parameters": rope}


def problems_of(error: pytest.ExceptionInfo[InvalidInput]) -> dict[str, str]:
    return {problem.pointer: problem.detail for problem in error.value.problems}


def test_a_complete_seed_is_checked(session: Session, blobs: LocalBlobs) -> None:
    upload = begin_family(session, blobs)
    assert len(upload.missing) == len(set(announcement()["digests"].values())) + 2
    with pytest.raises(Conflict, match="blobs were not sent"):
        complete_family(session, blobs)
    send_checkpoint(session, blobs)
    assert begin_family(session, blobs).missing == []
    family = complete_family(session, blobs)
    assert family.state is VersionState.CHECKING
    uploads.check_family(blobs, family)


def test_a_seed_that_is_used_never_changes(
    session: Session, blobs: LocalBlobs, family: str
) -> None:
    begin_expert(session, blobs)
    for changes in (announcement(expert=1), {"license": "MIT"}):
        with pytest.raises(Conflict, match=r"used by law: a seed .* never changes"):
            begin_family(session, blobs, **changes)
    assert begin_family(session, blobs).family.state is VersionState.READY


def test_an_expert_sends_only_its_ffns(session: Session, blobs: LocalBlobs, family: str) -> None:
    upload = begin_expert(session, blobs)
    ffns = [data for name, data in tiny.tensors(expert=1).items() if ".mlp." in name]
    sample = documents.serialize(tiny.sample_documents(expert=1))
    assert set(upload.missing) == {digest_of(data) for data in [*ffns, sample]}


def test_a_complete_expert_is_checked(session: Session, blobs: LocalBlobs, family: str) -> None:
    number = begin_expert(session, blobs).version.number
    send_checkpoint(session, blobs, expert=1)
    send_documents(session, blobs, expert=1)
    version = complete_expert(session, blobs, number=number)
    assert version.state is VersionState.CHECKING
    assert len(uploads.check_expert_version(blobs, version)) == 9
    assert begin_expert(session, blobs).missing == []


def test_the_same_checkpoint_is_the_same_version(
    session: Session, blobs: LocalBlobs, family: str
) -> None:
    first = begin_expert(session, blobs).version
    assert begin_expert(session, blobs).version is first
    assert begin_expert(session, blobs, number=2).version.number == 2
    assert begin_expert(session, blobs, documents="a" * 64).version.number == 3


def test_a_retired_version_cannot_be_announced_again(
    session: Session, blobs: LocalBlobs, family: str
) -> None:
    begin_expert(session, blobs)
    experts.retire(session, expert="law", number=1)
    with pytest.raises(Conflict, match="was retired"):
        begin_expert(session, blobs)
    with pytest.raises(Conflict, match="no version that is ready"):
        experts.pin(session, "law")


def test_an_unknown_family_is_refused(session: Session, blobs: LocalBlobs) -> None:
    with pytest.raises(NotFound, match="no family 'tiny'"):
        begin_expert(session, blobs)


def test_a_family_that_is_uploading_takes_no_expert(session: Session, blobs: LocalBlobs) -> None:
    begin_family(session, blobs)
    with pytest.raises(Conflict, match="uploading, not ready"):
        begin_expert(session, blobs)


def test_an_expert_stays_in_its_family(session: Session, blobs: LocalBlobs, family: str) -> None:
    begin_expert(session, blobs)
    begin_family(session, blobs, name="other")
    make_ready(session, blobs, name="other")
    with pytest.raises(Conflict, match="belongs to family 'tiny'"):
        begin_expert(session, blobs, family="other")
    assert [f.name for f in families.find_all(session)] == ["other", "tiny"]


@pytest.mark.parametrize("name", ["", "Law", "../law", "law@1", "a" * 64])
def test_an_invalid_name_is_refused(
    session: Session, blobs: LocalBlobs, family: str, name: str
) -> None:
    with pytest.raises(InvalidInput) as error:
        begin_expert(session, blobs, expert=name)
    assert "/expert" in problems_of(error)


def test_a_model_of_another_size_is_refused(
    session: Session, blobs: LocalBlobs, family: str
) -> None:
    with pytest.raises(InvalidCheckpoint) as error:
        begin_expert(session, blobs, config=tiny.config() | {"intermediate_size": 96})
    problems = problems_of(error)
    name = "model.layers.1.mlp.up_proj.weight"
    assert problems[f"/tensors/{name}"] == (
        f"tensor '{name}' has shape [64, 32], config.json asks [96, 32]"
    )
    assert len(problems) == 6, "all six FFN tensors are named at once"


def test_a_model_with_another_rope_theta_is_refused(
    session: Session, blobs: LocalBlobs, family: str
) -> None:
    with pytest.raises(Incompatible) as error:
        begin_expert(session, blobs, config=theta_of(5.0))
    detail = "is 5.0, the family's seed has 10000.0"
    assert problems_of(error) == {"/config/rope_theta": detail}


def test_a_tensor_of_another_dtype_is_refused(
    session: Session, blobs: LocalBlobs, family: str
) -> None:
    shard = announcement()["shards"][0]
    changed = Shard(shard.file, shard.size, shard.header.replace('"BF16"', '"F16" '))
    with pytest.raises(Incompatible) as error:
        begin_expert(session, blobs, shards=[changed])
    detail = (
        "tensor 'model.norm.weight' is F16 [32], the family's seed has BF16 [32]: send it in that"
        " dtype, as `nexusmix register` does"
    )
    assert problems_of(error)["/tensors/model.norm.weight"] == detail


def test_a_tokenizer_of_other_bytes_is_sent(
    session: Session, blobs: LocalBlobs, family: str
) -> None:
    files = announcement()["files"] | {"tokenizer.json": "b" * 64}
    assert "b" * 64 in begin_expert(session, blobs, files=files).missing


def test_a_missing_tensor_is_named(session: Session, blobs: LocalBlobs, family: str) -> None:
    # A valid file without its last tensor.
    name = "model.norm.weight"
    content = json.loads(tiny.safetensors_header())
    del content[name]
    header = json.dumps(content)
    size = 8 + len(header) + max(e["data_offsets"][1] for n, e in content.items() if n[0] != "_")
    digests = announcement()["digests"]
    del digests[name]
    with pytest.raises(InvalidCheckpoint) as error:
        begin_expert(session, blobs, shards=[Shard("a", size, header)], digests=digests)
    assert problems_of(error) == {f"/tensors/{name}": f"tensor '{name}' of shape [32] is missing"}


def test_a_bad_header_is_named_by_its_position(
    session: Session, blobs: LocalBlobs, family: str
) -> None:
    shard = announcement()["shards"][0]
    with pytest.raises(InvalidCheckpoint) as error:
        begin_expert(session, blobs, shards=[Shard(shard.file, shard.size - 1, shard.header)])
    assert problems_of(error) == {
        "/shards/0/header": "model.safetensors: tensor 'model.norm.weight' ends at byte "
        f"{shard.size}, the file has {shard.size - 1}"
    }


def test_a_tensor_in_two_shards_is_refused(
    session: Session, blobs: LocalBlobs, family: str
) -> None:
    with pytest.raises(InvalidCheckpoint) as error:
        begin_expert(session, blobs, shards=announcement()["shards"] * 2)
    assert "is in an earlier shard too" in problems_of(error)["/shards/1/header"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pytorch_model.bin", "only safetensors enters"),
        ("optimizer.PT", "only safetensors enters"),
        ("../tokenizer.json", "not a plain file name"),
        (".hidden.json", "not a plain file name"),
        ("config.json", "is computed"),
        ("model.safetensors", "is computed"),
        ("modeling.py", "are kept"),
    ],
)
def test_an_unsupported_file_is_refused(
    session: Session, blobs: LocalBlobs, family: str, name: str, reason: str
) -> None:
    files = announcement()["files"] | {name: "a" * 64}
    with pytest.raises(InvalidCheckpoint, match="refused") as error:
        begin_expert(session, blobs, files=files)
    assert [reason in detail for detail in problems_of(error).values()] == [True]


def test_all_problems_are_reported_together(
    session: Session, blobs: LocalBlobs, family: str
) -> None:
    digests = announcement()["digests"]
    digests["model.norm.weight"] = "short"
    digests["no.such.tensor"] = "a" * 64
    del digests["model.embed_tokens.weight"]
    with pytest.raises(InvalidCheckpoint) as error:
        begin_expert(session, blobs, digests=digests, files={"weights.pkl": "a" * 64})
    assert set(problems_of(error)) == {
        "/digests/model.norm.weight",
        "/digests/no.such.tensor",
        "/digests/model.embed_tokens.weight",
        "/files/weights.pkl",
        "/files/tokenizer.json",
    }


def test_a_size_that_contradicts_a_stored_blob_is_refused(
    session: Session, blobs: LocalBlobs, family: str
) -> None:
    digests = announcement(expert=1)["digests"]
    digests["model.layers.0.mlp.up_proj.weight"] = send(session, blobs, b"something else")
    with pytest.raises(InvalidCheckpoint) as error:
        begin_expert(session, blobs, digests=digests)
    assert "has 14 bytes, the header tells 4096" in problems_of(error)["/digests"]


@pytest.mark.parametrize("bits", [0x7FC0, 0x7F80, 0xFF80], ids=["NaN", "inf", "-inf"])
def test_a_number_that_is_not_finite_is_found(
    session: Session, blobs: LocalBlobs, family: str, bits: int
) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    data = bytearray(tiny.tensors(expert=1)[name])
    data[2 * (3 * 64 + 5) : 2 * (3 * 64 + 5) + 2] = struct.pack("<H", bits)
    digests = announcement(expert=1)["digests"] | {name: send(session, blobs, bytes(data))}
    begin_expert(session, blobs, digests=digests)
    send_checkpoint(session, blobs, expert=1)
    send_documents(session, blobs, expert=1)
    with pytest.raises(InvalidCheckpoint) as error:
        checked(session, blobs)
    detail = f"tensor '{name}' holds NaN or infinity at [3, 5], expected finite numbers"
    assert problems_of(error) == {f"/tensors/{name}": detail}


def test_changed_bytes_are_found(session: Session, blobs: LocalBlobs, family: str) -> None:
    begin_expert(session, blobs)
    manifest = send_checkpoint(session, blobs, expert=1)
    send_documents(session, blobs, expert=1)
    name = "model.layers.0.mlp.up_proj.weight"
    path = blobs.local_path(manifest.tensors[name].digest)
    path.chmod(0o644)
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(InvalidCheckpoint) as error:
        checked(session, blobs)
    assert "is corrupt" in problems_of(error)[f"/tensors/{name}"]


def test_documents_without_a_held_out_part_are_refused(
    session: Session, blobs: LocalBlobs, family: str
) -> None:
    sample = documents.serialize(tiny.sample_documents(expert=1, num_held_out=0))
    begin_expert(session, blobs, documents=send(session, blobs, sample))
    send_checkpoint(session, blobs, expert=1)
    with pytest.raises(InvalidInput) as error:
        checked(session, blobs)
    assert "'held-out'" in problems_of(error)["/documents"]


def test_no_transaction_is_open_while_bytes_are_read(
    database: str, family: str, session: Session, blobs: LocalBlobs
) -> None:
    """A database that ends idle transactions would end the upload."""
    upload = begin_expert(session, blobs)
    send_checkpoint(session, blobs, expert=1)
    send_documents(session, blobs, expert=1)
    session.commit()
    observer = create_engine(database, poolclass=NullPool)
    num_open: list[int] = []

    class Watched(LocalBlobs):
        def local_path(self, digest: str) -> Path:
            with observer.connect() as connection:
                query = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in trans%'"
                num_open.append(connection.execute(text(query)).scalar_one())
            return super().local_path(digest)

    complete_expert(session, Watched(blobs.root), number=upload.version.number)
    assert num_open
    assert set(num_open) == {0}
