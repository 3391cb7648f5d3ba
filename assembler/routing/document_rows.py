"""Router rows that are mean document vectors, without learning.

FlexOlmo (arXiv 2507.07024, section 3.3) uses an embedder as wide as the network. Here the seed
itself is the embedder: a document's vector is the mean of its last hidden states, normalized to
length 1. The mean over documents is neither centered nor normalized, and all blocks share it, as in
their code.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from assembler import tokenizer_file
from assembler.compute_dtype import fastest_on_cpu
from assembler.network.model import Network
from assembler.training.optimizer import DTYPES
from registry.blobs.blobs import BlobStore, get_bytes
from registry.catalog.documents import Document, sample_evenly
from registry.checkpoints.file_names import TOKENIZER
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.numpy_tensors import Floats

SEQUENCE_LENGTH = 256
BATCH_SIZE = 8


@torch.inference_mode()
def rows(seed: Manifest, documents: Sequence[Sequence[Document]], *, blobs: BlobStore) -> Floats:
    """Return one row [n, D] for the documents of each domain."""
    network = Network.from_manifest(seed, blobs, dtype=DTYPES[fastest_on_cpu()])
    tokenizer = tokenizer_file.read(get_bytes(blobs, seed.files[TOKENIZER]))
    tokenizer.enable_truncation(SEQUENCE_LENGTH)
    tokenizer.enable_padding()
    means = torch.stack(
        [
            _mean(network, tokenizer, sample_evenly(domain_documents))
            for domain_documents in documents
        ]
    )
    return cast(Floats, means.numpy())


def _mean(network: Network, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Return the mean vector [D] of the texts."""
    vectors: list[Tensor] = []
    for start in range(0, len(texts), BATCH_SIZE):
        encodings = tokenizer.encode_batch(list(texts[start : start + BATCH_SIZE]))
        tokens_BT = torch.tensor([e.ids for e in encodings])
        # Padding is on the right, where a causal network lets no text attend to it.
        mask_BT1 = torch.tensor([e.attention_mask for e in encodings])[..., None]
        states_BTD = network.model(tokens_BT, cache=None, router_logits=None, project_rows=False)
        sums_BD = (mask_BT1 * states_BTD.float()).sum(1)
        vectors.append(F.normalize(sums_BD, dim=-1))
    return torch.cat(vectors).mean(0)
