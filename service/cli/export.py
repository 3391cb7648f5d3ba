"""Write a mix or an expert as a folder of files."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.cli.options import NAMED, IsExpert
from service.cli.paths import check_new_folder

if TYPE_CHECKING:
    from assembler.stock.model_card import Origins, Work
    from service.client.client import Client
    from service.schemas.experts import VersionBody

app = typer.Typer()
command = partial(app.command, rich_help_panel="Mixes")

SHARD_SIZE = "--max-shard-size"


@command()
def export(
    version: Annotated[str, typer.Argument(help=f"A mix, or with --expert an expert: {NAMED}.")],
    folder: Annotated[Path, typer.Argument(help="New folder for the files.")],
    expert: IsExpert = False,
    form: Annotated[
        Literal["nexus", "stock"],
        typer.Option(
            "--format",
            help="`nexus`: the mix as it is, with its signature; it takes nexusmix to load it."
            " `stock`: rewritten for vLLM and transformers as they are, with equal logits in"
            " float32, and a model card. What cannot be rewritten exactly is refused.",
        ),
    ] = "nexus",
    max_shard_size: Annotated[
        str | None,
        typer.Option(
            SHARD_SIZE,
            help="Size above which the weights of a stock export are divided over several files,"
            " for instance 500MB. Default: 5GB.",
        ),
    ] = None,
    adapter: Annotated[
        bool,
        typer.Option(
            "--adapter",
            help="Write the LoRA or DoRA adapter that an expert was registered from, as peft reads"
            " it. It comes through the service, and each file is compared with its SHA-256.",
        ),
    ] = False,
) -> None:
    """Write a mix, or an expert, as a folder of Hugging Face files.

    The files come from the store of this data folder, not through the service.
    """
    from assembler.stock.shards import MAX_SHARD_BYTES
    from assembler.stock.stock_export import StockExport
    from registry.blobs import blob_stores
    from registry.checkpoints import exports, manifests
    from registry.errors import InvalidInput
    from service import quantities
    from service.client.local import connect
    from service.terminal.console import console, copying
    from service.terminal.mix_progress import find_mix

    check_new_folder(folder)
    if adapter:
        if form == "stock" or max_shard_size is not None:
            raise InvalidInput(
                f"--adapter writes files of peft: leave out --format and {SHARD_SIZE}"
            )
        return _write_adapter(version, folder)
    if max_shard_size is not None and form != "stock":
        raise InvalidInput(f"{SHARD_SIZE} goes with --format stock; 'nexus' writes one file")
    max_bytes = MAX_SHARD_BYTES
    if max_shard_size is not None:
        max_bytes = quantities.read_size(max_shard_size, at=SHARD_SIZE)
    store = blob_stores.store()
    with connect() as client:
        ref = client.expert_version(version).ref if expert else find_mix(client, version).ref
        files = client.files(ref, of="experts" if expert else "mixes")
        manifest = manifests.load(store, files.manifest_digest)
        if form == "stock":
            origins = _of_expert(client, ref) if expert else _of_mix(client, ref)
            stock = StockExport(manifest, store, origins, max_shard_bytes=max_bytes)
            num_bytes, write = stock.num_bytes, partial(stock.write, folder)
        else:
            num_bytes, signed = sum(file.size for file in files.data), files.attestation_digest
            write = partial(exports.export, manifest, store, folder, attestation_digest=signed)
    with copying(ref, num_bytes=num_bytes) as on_bytes:
        write(on_bytes=on_bytes)
    console.print(f"{folder}: {num_bytes / 1e6:.0f} MB")


def _write_adapter(expert: str, folder: Path) -> None:
    from service.client.local import connect
    from service.terminal.console import console, copying

    with connect() as client:
        ref = client.expert_version(expert).ref
        num_bytes = sum(file.size for file in client.files(ref, of="adapters").data)
        with copying(ref, num_bytes=num_bytes) as on_bytes:
            client.download(ref, folder, of="adapters", on_bytes=on_bytes)
    console.print(f"{folder}: {num_bytes / 1e6:.1f} MB")


def _of_mix(client: "Client", ref: str) -> "Origins":
    """Return what a mix was made from, as its owners describe it."""
    from assembler.stock.model_card import Origins

    mix = client.mix(ref)
    experts = tuple(_work(client.expert_version(one)) for one in mix.recipe["experts"])
    return Origins(ref=ref, seed=_seed(client, mix.family), experts=experts, recipe=mix.recipe)


def _of_expert(client: "Client", ref: str) -> "Origins":
    from assembler.stock.model_card import Origins

    version = client.expert_version(ref)
    family = client.expert(version.expert).family
    return Origins(ref=ref, seed=_seed(client, family), experts=(_work(version),))


def _seed(client: "Client", family: str) -> "Work":
    from assembler.stock.model_card import Work

    seed = client.family(family)
    return Work(
        ref=seed.name,
        license=seed.license,
        digest=seed.seed_digest,
        description=seed.description,
    )


def _work(version: "VersionBody") -> "Work":
    from assembler.stock.model_card import Work

    return Work(
        ref=version.ref,
        license=version.license,
        digest=version.manifest_digest,
        description=version.description,
        notes=tuple(version.notes),
    )
