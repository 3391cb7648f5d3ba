"""Who speaks, from the reference network of a mix assembled without the experts that are off."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from assembler.network.model import Network
from registry.blobs.blobs import BlobStore
from registry.checkpoints.manifests import Manifest
from tests.assembler import networks


@dataclass(frozen=True)
class Reference:
    """A mix and its reference networks, one for each choice of experts."""

    mix: Manifest
    blobs: BlobStore
    networks: dict[tuple[int, ...], Network]

    @classmethod
    def of(cls, mix: Manifest, blobs: BlobStore) -> "Reference":
        return cls(mix, blobs, {})

    def read(
        self, tokens: Sequence[int], *, disabled: Collection[int] = ()
    ) -> tuple[list[int], Tensor]:
        """Return the token predicted after each token, and the weights [T, L, M] of the experts.

        Experts that are off have weight 0. The last column is the shared expert's, if there is one.
        """
        off = tuple(sorted({*disabled, *self.mix.architecture.disabled_experts}))
        network = self._network(off)
        told: list[Tensor] = []
        with torch.inference_mode():
            logits_TV = network(torch.tensor([list(tokens)]), router_logits=told)[0]
        rows = [[self._weights(logits_N, off) for logits_N in block] for block in told]
        return logits_TV.argmax(-1).tolist(), torch.stack([torch.stack(b) for b in rows], dim=1)

    def _network(self, off: tuple[int, ...]) -> Network:
        if off not in self.networks:
            alone = self.mix
            for number in reversed(off):
                alone = networks.without_expert(alone, number, self.blobs)
            made = Network.from_manifest(alone, self.blobs, dtype=torch.float32)
            self.networks[off] = made
        return self.networks[off]

    def _weights(self, logits_N: Tensor, off: tuple[int, ...]) -> Tensor:
        """Return the weights [M] for one token, from the logits of the experts that are left."""
        a = self.mix.architecture
        p = logits_N.softmax(-1).tolist()
        chosen = sorted(range(len(p)), key=p.__getitem__)[-a.num_experts_per_tok :]
        total = sum(p[i] for i in chosen) if a.norm_topk_prob else 1.0
        answering = [i for i in range(a.num_experts) if i not in off]
        weights = [0.0] * a.num_experts
        for i in chosen:
            weights[answering[i]] = p[i] / total
        if a.shared_expert:
            weights.append(1 - sum(weights) if a.combine == "convex" else 1.0)
        return torch.tensor(weights)

    def check(
        self,
        prompt: Sequence[int],
        written: Sequence[int],
        rows: Any,
        *,
        disabled: Collection[int] = (),
        blocks: bool = False,
        first: int = 0,
    ) -> None:
        """Assert that greedy tokens equal, and the rows of all tokens from number `first` on."""
        predicted, weights_TLM = self.read([*prompt, *written[:-1]], disabled=disabled)
        assert predicted[len(prompt) - 1 :] == list(written)
        expected = weights_TLM if blocks else weights_TLM.mean(1)
        torch.testing.assert_close(torch.tensor(rows), expected[first:], rtol=0, atol=3e-5)
