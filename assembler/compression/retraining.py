"""Train the remaining weights of a pruned network on training documents.

Source: Divergent Token Metrics (arXiv 2311.01544, section on sparsification), which retrains after
each round of pruning. Decided here: a zero stays zero in all steps (in the paper the last tenth of
a round's steps may move it), only pruned matrices are trained, and the loss is the cross-entropy
of the next token.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from assembler.compression.pruning import pruned
from assembler.network.model import Network
from assembler.progress import OnMessage
from assembler.recipes.recipe import Finetune
from assembler.training.batches import DomainBatches, TokenReader
from assembler.training.distributed import process_group
from assembler.training.optimizer import learning_rate_factor, optimizer_of, set_learning_rates
from assembler.training.train_step import take_step
from engine.compression.sparsity_components import Shares
from engine.vllm_plugin import tensors
from registry.blobs.blobs import BlobStore
from registry.catalog.documents import Document
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.tensor_names import WEIGHT
from registry.errors import StepFailed

# Seeds an order of documents that differs from the order of other trainings.
ORDER = int.from_bytes(b"retrain")


class Retraining:
    """Trains rounds of `tokens` tokens on the training documents of all domains in turn.

    Raises InvalidInput when a domain does not fill one sequence.
    """

    def __init__(
        self,
        manifest: Manifest,
        documents: Sequence[Sequence[Document]],
        *,
        tokens: int,
        blobs: BlobStore,
        on_progress: OnMessage,
    ) -> None:
        self._recipe = Finetune(tokens=tokens, train="all", domain_weight=0.0)
        reader, length = TokenReader.of(manifest, blobs), self._recipe.sequence_length
        self._batches = DomainBatches(
            [reader.windows(domain, split="train", length=length) for domain in documents],
            batch_size=self._recipe.batch_size,
            entropy=(ORDER, self._recipe.seed),
        )
        self._manifest, self._on_progress = manifest, on_progress
        self._num_steps = 0

    def run(self, network: Network, shares: Shares) -> None:
        """Prune these linear layers of a float32 network for good, and train their other weights.

        The weights end rounded to the dtypes of the checkpoint, as they are stored. No two rounds
        read the same batches. Raises StepFailed when the loss is not finite.
        """
        linears = {name: cast(nn.Linear, network.get_submodule(name)) for name in shares}
        for name, linear in linears.items():
            linear.weight = nn.Parameter(pruned(linear.weight, shares[name]))
        self._train(network, [network.get_parameter(name + WEIGHT) for name in shares])
        for name, linear in linears.items():
            dtype = tensors.TORCH_DTYPES[self._manifest.tensors[name + WEIGHT].dtype]
            stored = linear.weight.detach().to(dtype).float()
            linear.weight = nn.Parameter(stored, requires_grad=False)

    def _train(self, network: Network, weights: Sequence[nn.Parameter]) -> None:
        recipe = self._recipe
        zeros = [weight == 0 for weight in weights]
        optimizer = optimizer_of((weight, recipe.learning_rate) for weight in weights)
        with process_group() as world:
            for step in range(recipe.num_steps):
                set_learning_rates(optimizer, learning_rate_factor(recipe, step))
                batch = self._batches.batch(self._num_steps + step)
                taken = take_step(
                    batch, network=network, optimizer=optimizer, recipe=recipe, world=world
                )
                if not math.isfinite(taken.loss + taken.gradient_norm):
                    raise StepFailed(f"the loss is {taken.loss} in step {step + 1} of retraining")
                with torch.no_grad():
                    for weight, zero in zip(weights, zeros, strict=True):
                        weight.masked_fill_(zero, 0)
                self._on_progress(f"retraining: step {step + 1} of {recipe.num_steps}")
        self._num_steps += recipe.num_steps
