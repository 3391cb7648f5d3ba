"""The stages of a mix's gate: which checkpoints are compared, and which read the texts."""

from collections.abc import Collection, Mapping, Sequence

from assembler.evaluation.perplexities import GateCheckpoints
from assembler.network import network_runner
from engine.divergence.metrics import Continuation, Reading
from engine.gates.mix_gate import Sides
from engine.gates.policy import Stage
from registry.blobs.blobs import BlobStore
from registry.checkpoints.manifests import Manifest


def readings_of_other_mixes(
    checkpoints: GateCheckpoints, texts: Mapping[str, Sequence[Continuation]], blobs: BlobStore
) -> dict[str, dict[Stage, list[Reading]]]:
    """Return, by domain and stage, how other mixes read the candidate's texts.

    They are the candidate before its finetune, the candidate before its compression, and the base
    version in the domains that it has. One network is in memory at a time.
    """
    readers: dict[Stage, tuple[Manifest, Collection[str]]] = {}
    if checkpoints.finetuned is not None:
        readers["finetuned"] = (checkpoints.assembled, texts.keys())
    if checkpoints.compressed is not None:
        readers["compressed"] = (checkpoints.trained, texts.keys())
    if checkpoints.base is not None:
        readers["base"] = (checkpoints.base, checkpoints.base_domains & texts.keys())
    readings: dict[str, dict[Stage, list[Reading]]] = {domain: {} for domain in texts}
    for stage, (manifest, domains) in readers.items():
        runner = network_runner.of_manifest(manifest, blobs)
        for domain in domains:
            readings[domain][stage] = runner.read(texts[domain])
        del runner  # before the next is loaded
    return readings


def sides(checkpoints: GateCheckpoints, *, has_general: bool = False) -> dict[Stage, Sides]:
    """Return the digests of both sides of each stage of this gate.

    `has_general` says whether there is text of no expert's domain.
    """
    parents = {"seed": checkpoints.seed.digest}
    parents |= {f"expert {name}": expert.digest for name, expert in checkpoints.experts.items()}
    assembled, candidate = checkpoints.assembled.digest, checkpoints.candidate.digest
    stages: dict[Stage, Sides] = {"assembled": Sides(candidate=assembled, against=parents)}
    if checkpoints.finetuned is not None:
        before = {"the mix before its finetune": assembled}
        stages["finetuned"] = Sides(candidate=candidate, against=before)
    if checkpoints.compressed is not None:
        before = {"the mix before its compression": checkpoints.trained.digest}
        stages["compressed"] = Sides(candidate=candidate, against=before)
    stages["candidate"] = Sides(candidate=candidate, against=parents)
    # One checkpoint in two implementations.
    stages["served"] = Sides(candidate=candidate, against={"the reference network": candidate})
    if checkpoints.base is not None:
        base = {"the version before": checkpoints.base.digest}
        stages["base"] = Sides(candidate=candidate, against=base)
    if has_general:
        stages["general"] = Sides(candidate=candidate, against=parents)
    return stages
