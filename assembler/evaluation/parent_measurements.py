"""Measure what every gate needs to know of a mix's parents, before there is a mix.

The results are in the cache that gates read from: the perplexities of an expert and its seed on the
expert's held-out documents and on general text, in the lengths of the default policy. A gate with
another policy, or on another machine, measures them itself.
"""

from collections.abc import Sequence

from assembler.evaluation import perplexities
from assembler.evaluation.general_text import GeneralText
from assembler.training.batches import TokenReader, held_out_windows
from engine.gates.general_gate import GENERAL_TEXT
from engine.gates.mix_gate import WINDOW_TOKENS
from engine.gates.policy import Policy
from registry.blobs.blobs import BlobStore
from registry.catalog.documents import Document
from registry.checkpoints.manifests import Manifest


def measure(
    expert: Manifest,
    documents: Sequence[Document],
    *,
    seed: Manifest,
    general: GeneralText | None,
    blobs: BlobStore,
) -> None:
    """Measure an expert, and its seed, which knows general text already if it has other experts."""
    reader, num_tokens = TokenReader.of(seed, blobs), Policy().tokens_per_domain
    [own] = held_out_windows(
        reader, [documents], length=WINDOW_TOKENS, count=max(1, num_tokens // WINDOW_TOKENS)
    )
    texts = {"own": own} if len(own) else {}
    if general is not None:
        on_general = general.windows(reader, num_tokens=num_tokens)
        texts |= {} if on_general is None else {GENERAL_TEXT: on_general}
    for manifest in (expert, seed):
        perplexities.of_checkpoint(manifest, texts, blobs)
