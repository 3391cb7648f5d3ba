"""Make a data folder with what the pages name: a tiny family `smollm2-135m` and a mix `demo`.

The family has random networks of two layers in place of the real ones, so that the commands of
pages run in seconds. Everything else is real: database, jobs, gates, vLLM.
"""

import json
from pathlib import Path

from assembler.demo import seed_folders, seeds
from engine.gates.policy import (
    BaseLimits,
    CandidateLimits,
    GeneralLimits,
    Policy,
    ServedLimits,
)
from registry.catalog import documents
from registry.catalog.documents import Document
from registry.checkpoints.file_names import CONFIG
from service.client.client import Client
from tests import tiny
from tests.service.services import serving

FAMILY = seeds.DEFAULT.name
EXPERTS = {"dictionary": 1, "german-manuals": 2, "python": 3}
# Random networks are no better than their seed, and the tests check the commands.
POLICY = Policy(
    prompts_per_domain=2,
    served=ServedLimits(min_fdt_75=0),
    candidate=CandidateLimits(max_perplexity_ratio_to_seed=100),
    base=BaseLimits(max_perplexity_ratio=100),
    general=GeneralLimits(max_perplexity_ratio_to_parents=100),
)
DOCUMENTS_OF_A_DOMAIN = 40
# As many positions as the real seed has, since commands on pages use the default lengths.
CONTEXT = 2048


def make(home: Path) -> None:
    """Fill the data folder `home` by a service, which is stopped at the end."""
    checkpoint(seed_folders.cached_folder(seeds.DEFAULT, home / "cache"))
    with serving(home) as service:
        key = (home / "api-key").read_text().strip()
        with Client(service.address, key=key) as client:
            _register(client, home)
            mix = client.request_mix(
                name="demo",
                family=FAMILY,
                experts=["dictionary", "german-manuals"],
                finetune={"tokens": 0},
                deploy=True,
            )
            mix = client.wait_for_mix(mix)
            assert mix.state == "succeeded", mix.error
        service.interrupt()


def materials(folder: Path) -> None:
    """Write the files that pages take from their readers."""
    checkpoint(folder / "my-seed")
    # Paragraphs for some more than the ten documents that a plain text must give.
    paragraphs = tiny.sample_documents(expert=EXPERTS["python"], num_train=200, num_held_out=0)
    (folder / "python.txt").write_text("\n\n".join(each.text for each in paragraphs))
    public(folder / "public.jsonl")


def checkpoint(folder: Path, *, expert: int = 0) -> Path:
    """Write a checkpoint of `tests.tiny` with a longer context; an expert has documents."""
    tiny.write_checkpoint(folder, expert=expert)
    config = tiny.config() | {"max_position_embeddings": CONTEXT}
    (folder / CONFIG).write_text(json.dumps(config))
    if expert:
        (folder / "documents.jsonl").write_bytes(documents.serialize(_texts(expert)))
    return folder


def public(path: Path) -> Path:
    """Write documents of four domains, each with its domain's name."""
    lines = [
        json.dumps({"id": text.id, "text": text.text, "split": text.split, "domain": str(domain)})
        for domain in range(4, 8)
        for text in _texts(domain)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def _texts(expert: int) -> list[Document]:
    num_held_out = DOCUMENTS_OF_A_DOMAIN // 4
    return tiny.sample_documents(
        expert=expert,
        num_train=DOCUMENTS_OF_A_DOMAIN - num_held_out,
        num_held_out=num_held_out,
    )


def _register(client: Client, folder: Path) -> None:
    seed = checkpoint(folder / "seed")
    client.wait_for_family(
        client.register_family(seed, name=FAMILY, license="Apache-2.0", description="A tiny family")
    )
    projection = client.request_projection(FAMILY, documents=public(folder / "public.jsonl"))
    client.set_policy(FAMILY, POLICY.model_dump(mode="json"))
    for name, number in EXPERTS.items():
        source = checkpoint(folder / name, expert=number)
        version = client.register_expert(source, name=name, family=FAMILY, license="CC0-1.0")
        client.wait_for_embedding(version)
    assert client.wait_for_projection(projection).state == "ready"
