"""Router rows by a ridge regression from router inputs to the experts, without learning.

DUME (arXiv 2603.29765): every expert reads its own documents, and each block solves
`(X'X + lambda I) W = X'Y` for the router inputs X and the numbers of the experts Y, one-hot. Rows
are normalized to length 1. A temperature divides the logits; here it is `router_scale`. Of the
documents only sums over tokens are kept.

Two things differ. Their regression has a constant input, ours none, because the router has no bias;
router inputs have a large common mean, which takes its place. They read with the mean attention of
all experts, ours with each expert's own; the two are equal where only FFNs were trained.

Letters: L blocks, N experts, D hidden.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F

from assembler.routing.embedder import DOMAIN_TOKENS
from assembler.routing.router_inputs import RouterInputs
from registry.blobs.blobs import BlobStore
from registry.catalog.documents import Document
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.numpy_tensors import Floats

# Lambda of their code. It is added to sums over all tokens, so it matters only for directions with
# almost no variance.
RIDGE = 1e-2


def rows(
    experts: Sequence[Manifest], documents: Sequence[Sequence[Document]], *, blobs: BlobStore
) -> list[Floats]:
    """Return one row [N, D] per expert for each block; `documents` are those of each expert."""
    gram_LDD, sums = torch.zeros((), dtype=torch.float64), []
    for expert, own_documents in zip(experts, documents, strict=True):
        moments = RouterInputs(expert, blobs).moments(own_documents, num_tokens=DOMAIN_TOKENS)
        mean_LD = moments.mean.double()
        second_LDD = moments.covariance.double() + mean_LD[:, :, None] * mean_LD[:, None, :]
        gram_LDD = gram_LDD + moments.num_tokens * second_LDD
        sums.append(moments.num_tokens * mean_LD)
    identity_DD = torch.eye(gram_LDD.shape[-1], dtype=torch.float64)
    weights_LDN = torch.linalg.solve(gram_LDD + RIDGE * identity_DD, torch.stack(sums, -1))
    rows_LND = F.normalize(weights_LDN.mT, dim=-1).float()
    return [cast(Floats, rows_ND.numpy()) for rows_ND in rows_LND]
