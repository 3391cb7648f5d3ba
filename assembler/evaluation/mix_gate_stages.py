"""The stages of a gate besides serving: who reads the candidate's texts, and what is compared."""

from collections.abc import Collection, Mapping, Sequence

from assembler.evaluation.perplexities import GateCheckpoints
from assembler.network import network_runner
from engine.divergence.metrics import Continuation, Reading
from engine.gates.mix_gate import Sides
from engine.gates.policy import Stage
from registry.blobs import BlobStore
from registry.manifests import Manifest


def read_by_others(
    contenders: GateCheckpoints, texts: Mapping[str, Sequence[Continuation]], blobs: BlobStore
) -> dict[str, dict[Stage, list[Reading]]]:
    """By domain what other mixes make of the candidate's texts: itself before its finetune and
    before its compression, and the version before in the domains that it has. One network is in
    memory at a time."""
    readers: dict[Stage, tuple[Manifest, Collection[str]]] = {}
    if contenders.finetuned is not None:
        readers["finetuned"] = (contenders.assembled, texts.keys())
    if contenders.compressed is not None:
        readers["compressed"] = (contenders.trained, texts.keys())
    if contenders.base is not None:
        readers["base"] = (contenders.base, contenders.base_domains & texts.keys())
    readings: dict[str, dict[Stage, list[Reading]]] = {domain: {} for domain in texts}
    for stage, (manifest, domains) in readers.items():
        runner = network_runner.of_manifest(manifest, blobs)
        for domain in domains:
            readings[domain][stage] = runner.read(texts[domain])
        del runner  # before the next is loaded
    return readings


def sides(contenders: GateCheckpoints) -> dict[Stage, Sides]:
    """Digests of both sides, of the stages that there are."""
    parents = {"seed": contenders.seed.digest}
    parents |= {f"expert {name}": own.digest for name, own in contenders.experts.items()}
    assembled, candidate = contenders.assembled.digest, contenders.candidate.digest
    found: dict[Stage, Sides] = {"assembled": Sides(candidate=assembled, against=parents)}
    if contenders.finetuned is not None:
        before = {"the mix before its finetune": assembled}
        found["finetuned"] = Sides(candidate=candidate, against=before)
    if contenders.compressed is not None:
        before = {"the mix before its compression": contenders.trained.digest}
        found["compressed"] = Sides(candidate=candidate, against=before)
    found["candidate"] = Sides(candidate=candidate, against=parents)
    # One checkpoint in two implementations.
    found["served"] = Sides(candidate=candidate, against={"the reference network": candidate})
    if contenders.base is not None:
        base = {"the version before": contenders.base.digest}
        found["base"] = Sides(candidate=candidate, against=base)
    return found
