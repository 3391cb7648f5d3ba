"""The client library against the real service, also over lines that break.

Covers: mix_records, transfers, uploads.
"""

import threading
from pathlib import Path

import pytest

from assembler.mixes import job_events, mix_state, mixes
from assembler.tables import MixState
from registry.blobs.blobs import BlobStore
from registry.catalog import experts
from registry.checkpoints.safetensors_header import read_header
from registry.database import db
from registry.database.tables import VersionState
from registry.errors import (
    Conflict,
    InvalidCheckpoint,
    InvalidInput,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from service.client import connection
from service.client.client import Client
from service.client.transfers import Transfer
from service.schemas.mixes import EventBody, MixBody
from tests import factories, tiny, tiny_adapters
from tests.assembler import rows
from tests.assembler.published import publish
from tests.service.cutting import cutting

FINETUNE_NOTHING = {"tokens": 0}


@pytest.fixture
def expert(tmp_path: Path) -> Path:
    return tiny.write_checkpoint(tmp_path / "expert", expert=1)


@pytest.fixture
def mix(client: Client, store: BlobStore) -> MixBody:
    with db.transaction() as session:
        rows.add_all(session, store)
    return client.request_mix(
        name="both",
        family="tiny",
        experts=["expert-1", "expert-2"],
        finetune=FINETUNE_NOTHING,
    )


def register(client: Client, folder: Path) -> list[Transfer]:
    transfers: list[Transfer] = []
    client.register_expert(
        folder, name="law", family="tiny", license="CC0-1.0", on_transfer=transfers.append
    )
    return transfers


def test_an_adapter_is_registered_as_its_folder_lies(
    client: Client, family: str, tmp_path: Path
) -> None:
    folder = tiny_adapters.write(tmp_path / "adapter", dora=True)
    version = client.register_expert(folder, name="law", family=family, license="CC0-1.0")
    assert version.state is VersionState.IMPORTING
    assert version.notes == ["DoRA adapter of rank 4 on down_proj, q_proj (2 layers)"]
    # The same folder finds the same version.
    again = client.register_expert(folder, name="law", family=family, license="CC0-1.0")
    assert again.ref == version.ref == "law@1"


def test_a_family_and_an_expert_are_registered(client: Client, family: str, expert: Path) -> None:
    transfers = register(client, expert)
    # Half of the checkpoint is equal to the seed's, and is not sent.
    ffn = sum(len(data) for name, data in tiny.tensors(expert=1).items() if ".mlp." in name)
    documents = (expert / "documents.jsonl").stat().st_size
    assert transfers[-1] == Transfer(ffn + documents, ffn + documents)
    assert register(client, expert) == []
    with db.transaction() as session:
        assert experts.find_version(session, expert="law", number=1).expert.family.name == family


def test_an_expert_is_registered_with_a_plain_text(
    client: Client, family: str, expert: Path, tmp_path: Path
) -> None:
    (expert / "documents.jsonl").unlink()
    before = {path.name: path.read_bytes() for path in expert.iterdir()}
    text = tmp_path / "law.txt"
    text.write_text("\n\n".join(f"Paragraph {n} says " + "much " * 100 for n in range(100)))
    sent = client.register_expert(
        expert, name="law", family="tiny", license="CC0-1.0", documents=text
    )

    assert sent.state is VersionState.CHECKING
    assert {path.name: path.read_bytes() for path in expert.iterdir()} == before
    again = client.register_expert(
        expert, name="law", family="tiny", license="CC0-1.0", documents=text
    )
    assert again.ref == sent.ref


def test_an_expert_without_documents_is_refused(client: Client, expert: Path) -> None:
    (expert / "documents.jsonl").unlink()
    with pytest.raises(InvalidInput, match=r"has no documents\.jsonl; name a file"):
        register(client, expert)


def test_a_request_is_sent_again_after_a_cut(
    address: str, key: str, family: str, expert: Path
) -> None:
    with (
        cutting(address, cuts=[(2000, None), (30_000, None), (None, 100), (0, None)]) as line,
        Client(line.address, key=key) as shaky,
    ):
        register(shaky, expert)
        assert line.cuts == []
    with db.transaction() as session:
        version = experts.find_version(session, expert="law", number=1)
        assert version.state is VersionState.CHECKING


def test_an_interrupted_upload_continues(client: Client, family: str, expert: Path) -> None:
    class Interrupted(Exception):
        pass

    announced: list[int] = []

    def interrupt(transfer: Transfer) -> None:
        announced.append(transfer.num_bytes)
        raise Interrupted

    with pytest.raises(Interrupted):
        client.register_expert(
            expert, name="law", family="tiny", license="CC0-1.0", on_transfer=interrupt
        )
    # What was on its way has arrived, and nothing was sent after it.
    assert len(announced) == 1
    assert 0 < register(client, expert)[-1].num_bytes < announced[0]


def test_a_download_survives_cuts(
    address: str, key: str, client: Client, family: str, expert: Path, tmp_path: Path
) -> None:
    register(client, expert)
    with db.transaction() as session:
        experts.mark_checked(session, 1)
    sizes: list[int] = []
    with (
        cutting(address, cuts=[(None, 20_000), (None, 30_000)]) as line,
        Client(line.address, key=key) as shaky,
    ):
        shaky.download("law@1", tmp_path / "back", of="experts", on_bytes=sizes.append)
        assert line.cuts == []
    back = {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()}
    assert sum(sizes) == sum(map(len, back.values()))
    for name, content in tiny.tokenizer_files().items():
        assert back[name] == content
    spans = read_header(tmp_path / "back" / "model.safetensors")
    data = back["model.safetensors"]
    assert {n: data[s.start : s.end] for n, s in spans.items()} == tiny.tensors(expert=1)


def test_errors_of_the_service_are_raised_by_the_client(client: Client, expert: Path) -> None:
    with pytest.raises(NotFound, match="no family 'tiny'"):
        register(client, expert)


def test_problems_of_a_checkpoint_are_raised_by_the_client(
    client: Client, seed: Path, family: str, expert: Path
) -> None:
    register(client, expert)
    with pytest.raises(Conflict, match="is used by law"):
        client.register_family(expert, name="tiny", license="Apache-2.0")
    (expert / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidCheckpoint) as refused:
        register(client, expert)
    assert refused.value.problems[0].pointer == "/files/tokenizer.json"


def test_a_folder_without_documents_or_tensors_is_refused(
    client: Client, seed: Path, expert: Path
) -> None:
    with pytest.raises(InvalidInput, match="documents"):
        register(client, seed)
    (expert / "model.safetensors").unlink()
    with pytest.raises(InvalidInput, match="safetensors"):
        register(client, expert)


def test_a_wrong_key_is_refused(address: str, seed: Path) -> None:
    with Client(address, key="nxm_wrong") as client, pytest.raises(Unauthenticated):
        client.register_family(seed, name="tiny", license="Apache-2.0")


def test_a_missing_service_is_unavailable(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE_SECONDS", 0.0)
    with Client("http://127.0.0.1:9", key=key) as client, pytest.raises(Unavailable):
        client.mix("both")


def test_a_mix_is_followed_to_its_end(client: Client, mix: MixBody) -> None:
    events: list[EventBody] = []
    assembled = threading.Event()

    def listen(event: EventBody) -> None:
        events.append(event)
        if event.message == "assemble ended":
            assembled.set()

    def work() -> None:
        with db.transaction() as session:
            mix_state.begin(session, mix.id, step="assemble")
            mix_state.complete(session, mix.id, step="assemble")
        # The event arrives while the step runs, not at the end.
        assert assembled.wait(30)
        with db.transaction() as session:
            mix_state.finish(session, mix.id, state=MixState.FAILED, error="the disk is full")

    worker = threading.Thread(target=work)
    worker.start()
    ended = client.wait_for_mix(mix, on_event=listen)
    worker.join()
    assert (ended.state, ended.error) == (MixState.FAILED, "the disk is full")
    messages = [event.message for event in events]
    assert messages == ["assemble began", "assemble ended", "the disk is full"]


def test_separators_inside_an_event_do_not_end_its_line(client: Client, mix: MixBody) -> None:
    message = "one\u2028two\x85three\nfour"
    with db.transaction() as session:
        job_id = mixes.get(session, mix.ref).job_id
        job_events.record(session, job_id, type="message", message=message)
        mix_state.finish(session, mix.id, state=MixState.FAILED, error="the disk is full")
    assert [event.message for event in client.events(mix)] == [message, "the disk is full"]


def test_no_event_is_lost_or_repeated_on_a_cut_line(
    client: Client, mix: MixBody, address: str, key: str
) -> None:
    with db.transaction() as session:
        mix_state.begin(session, mix.id, step="finetune")
        job_id = mixes.get(session, mix.ref).job_id
        for step in range(20):
            job_events.record(
                session, job_id, type="metrics", message="training", data={"step": step}
            )
        mix_state.finish(session, mix.id, state=MixState.SUCCEEDED)
    with (
        cutting(address, cuts=[(None, 3000), (None, 4000)]) as line,
        Client(line.address, key=key) as shaky,
    ):
        events = list(shaky.events(mix))
        assert line.cuts == []
    assert len(events) == 22
    assert [event.id for event in events] == sorted({event.id for event in events})


def test_a_mix_is_cancelled(client: Client, mix: MixBody) -> None:
    assert client.cancel_mix(mix).state is MixState.CANCELLED
    assert client.mix("both@1").state is MixState.CANCELLED
    assert client.wait_for_mix(mix).state is MixState.CANCELLED
    with pytest.raises(NotFound):
        client.gate_report(mix)
    with pytest.raises(NotFound, match="not deployed as model 'both'"):
        client.deployment_of(mix)
    with db.transaction() as session:
        assert mixes.get(session, "both@1").state is MixState.CANCELLED


def test_a_name_means_the_newest_published_version(
    client: Client, mix: MixBody, store: BlobStore
) -> None:
    with pytest.raises(Conflict, match="no version that is published; its newest, both@1"):
        client.mix("both")
    with db.transaction() as session:
        publish(session, store, mixes.get(session, "both@1"))
    newer = client.request_mix(
        name="both", family="tiny", experts=["expert-1", "expert-2"], finetune={"tokens": 128}
    )
    assert newer.ref == "both@2"
    assert client.mix("both").ref == "both@1"
    assert client.files("both").manifest_digest == client.files("both@1").manifest_digest


def test_the_name_of_an_expert_means_its_newest_ready_version(
    client: Client, store: BlobStore
) -> None:
    with pytest.raises(NotFound, match="no expert 'law'"):
        client.expert_version("law")
    with db.transaction() as session:
        law = factories.make_expert(session, factories.make_family(session, store), name="law")
        factories.make_version(session, law, store)
        factories.make_version(session, law, store, number=2, state=VersionState.UPLOADING)
    assert client.expert_version("law").ref == "law@1"
    with db.transaction() as session:
        experts.retire(session, expert="law", number=1)
    with pytest.raises(Conflict, match="no version that is ready"):
        client.expert_version("law")


def test_lists_are_read_to_their_end(
    client: Client, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PAGE_ENTRIES", 2)
    with db.transaction() as session:
        family = rows.add_all(session, store)
        for number in range(5):
            factories.make_expert(session, family, name=f"other-{number}")
    for number in range(5):
        client.request_mix(
            name=f"mix-{number}",
            family="tiny",
            experts=["expert-1", "expert-2"],
            finetune=FINETUNE_NOTHING,
        )
    assert len(list(client.experts())) == 7
    assert [body.ref for body in client.mixes()] == [f"mix-{n}@1" for n in range(4, -1, -1)]
