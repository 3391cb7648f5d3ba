"""Rows from documents equal a plain reading, text by text and without padding."""

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from assembler.compute_dtype import fastest_on_cpu
from assembler.network.model import Network
from assembler.routing import document_rows
from assembler.training.optimizer import DTYPES
from registry.blobs.blobs import LocalBlobs
from registry.catalog.documents import sample_evenly
from registry.checkpoints.manifests import Manifest
from tests import tiny
from tests.assembler import tiny_mixes


def plain_row(seed: Manifest, texts: list[str], blobs: LocalBlobs) -> torch.Tensor:
    network = Network.from_manifest(seed, blobs, dtype=DTYPES[fastest_on_cpu()])
    tokenizer = Tokenizer.from_str(tiny.tokenizer_files()["tokenizer.json"].decode())
    vectors = []
    with torch.inference_mode():
        for text in texts:
            tokens = torch.tensor([tokenizer.encode(text).ids[: document_rows.SEQUENCE_LENGTH]])
            states = network.model(tokens, cache=None, router_logits=None, project_rows=False)
            vectors.append(F.normalize(states[0].float().mean(0), dim=0))
    return torch.stack(vectors).mean(0)


def test_a_row_is_the_mean_vector_of_a_domains_texts(blobs: LocalBlobs) -> None:
    seed, domains = tiny.store_manifest(blobs), tiny_mixes.expert_documents((1, 2))
    rows = torch.from_numpy(document_rows.rows(seed, domains, blobs=blobs))
    expected = [plain_row(seed, list(sample_evenly(own)), blobs) for own in domains]
    # bfloat16, where the processor has it, rounds sums of other lengths in another order.
    torch.testing.assert_close(rows, torch.stack(expected), atol=5e-3, rtol=0)
    assert not torch.allclose(rows[0], rows[1], atol=5e-3)
