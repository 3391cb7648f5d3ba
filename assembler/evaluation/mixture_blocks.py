"""Hold what a mix computes against its parents, without text and without its own manifest.

Each block is computed twice: by the reference network with the mix's tensors, and by the equation
of the mixture with the tensors of seed and experts. The equation is written out here once more, so
that an error of assembly, names, config or network shows.

Letters at the end of a tensor's name: T tokens, D hidden, N routed experts, K experts per token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assembler.assembly.inputs import MixParts
from assembler.evaluation.perplexities import GateCheckpoints
from assembler.network.model import Network
from assembler.network.moe import FeedForward, MoE
from assembler.recipes.recipe import Recipe
from engine.vllm_plugin import tensors
from registry.blobs.blobs import BlobStore
from registry.checkpoints import tensor_names
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.tensor_names import as_routed_expert, is_attention, is_ffn
from registry.errors import Problem, pointer

TOKENS = 32
# Of float32 sums in another order, as a share of the largest number.
MAX_RELATIVE_ERROR = 1e-4
# In nats, of a token's log-probability. Float32 in another order stays below 1e-4 here.
MAX_DISTANCE = 1e-3

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """How near a mix with all tokens routed to one expert is to what it must be then.

    That is the expert itself (`is_expert`), or the expert with averages in place of what was
    averaged. `distance` is the largest difference of log-probabilities from it, in nats. `blocks`
    are the distances of each block from the expert's own: as near as the averages allow.
    """

    is_expert: bool
    distance: float
    blocks: tuple[float, ...]


def check(parts: MixParts, assembled: Manifest) -> Iterator[Problem]:
    """Yield each block whose mixture is not that of its parents."""
    recipe, blobs, a = parts.inputs.recipe, parts.blobs, assembled.architecture
    for layer in range(a.num_hidden_layers):
        x_TD = _states(a, layer)
        with torch.inference_mode():
            module = _load(MoE(a), assembled, tensor_names.ffn(layer), blobs)
            made_TD, _ = module(x_TD, None)
            logits_TN = _logits(x_TD, layer, assembled, blobs)
            right_TD = _mixture(x_TD, logits_TN, recipe, _parents(parts, layer))
        error = float((made_TD - right_TD).abs().max() / right_TD.abs().max())
        # Written so that NaN is a problem.
        if not error <= MAX_RELATIVE_ERROR:
            detail = f"differs by {error:.2g} from the mixture of its parents' FFNs"
            yield Problem(pointer("blocks", layer), detail)


def nearness(checkpoints: GateCheckpoints, blobs: BlobStore) -> dict[str, Nearness]:
    """Return how near the mix is to each expert, by name, while all tokens are routed to it.

    The result is empty where outputs are added up: then the seed's part stays in every token.
    """
    a = checkpoints.assembled.architecture
    if a.shared_expert and a.combine != "convex":
        return {}
    return {
        name: _nearness(checkpoints, number, expert, blobs)
        for number, (name, expert) in enumerate(checkpoints.experts.items())
    }


@torch.inference_mode()
def _nearness(
    checkpoints: GateCheckpoints, number: int, expert: Manifest, blobs: BlobStore
) -> Nearness:
    mix = checkpoints.assembled
    generator = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(expert.architecture.vocab_size, (1, TOKENS), generator=generator)
    others = [i for i in range(mix.architecture.num_experts) if i != number]
    routed = replace(mix, config=mix.config | {"disabled_experts": others})
    twin = _as_dense(checkpoints, number, expert)
    is_expert = all(entry == expert.tensors[name] for name, entry in twin.tensors.items())
    # One network is in memory at a time.
    network = Network.from_manifest(expert, blobs, dtype=torch.float32)
    inputs, right_BTV = network.model.block_inputs(tokens_BT), network(tokens_BT)
    if not is_expert:
        del network
        network = Network.from_manifest(twin, blobs, dtype=torch.float32)
        right_BTV = network(tokens_BT)
    del network
    network = Network.from_manifest(routed, blobs, dtype=torch.float32)
    return Nearness(
        is_expert=is_expert,
        distance=_distance(network(tokens_BT), right_BTV),
        blocks=tuple(_block_distances(network, inputs)),
    )


def _as_dense(checkpoints: GateCheckpoints, number: int, expert: Manifest) -> Manifest:
    """Return the dense checkpoint that a mix must be while all its tokens go to one expert.

    Its tensors are the expert's, but for those that parents do not agree on and the mix averages.
    A mix with a base has what the base may have trained.
    """
    mix, has_base = checkpoints.assembled, checkpoints.base is not None
    averaged = list(checkpoints.experts.values())
    if not mix.architecture.shared_expert:
        averaged.append(checkpoints.seed)

    def entry(name: str) -> TensorEntry:
        routed = as_routed_expert(name, number) if is_ffn(name) or is_attention(name) else name
        agreed = len({member.tensors[name] for member in averaged}) == 1
        if not has_base and (agreed or (routed in mix.tensors and routed != name)):
            return expert.tensors[name]
        return mix.tensors.get(routed) or mix.tensors[name]

    return replace(expert, tensors={name: entry(name) for name in expert.tensors})


def _distance(logits_BTV: Tensor, others_BTV: Tensor) -> float:
    return float((logits_BTV.log_softmax(-1) - others_BTV.log_softmax(-1)).abs().max())


def _block_distances(mix: Network, inputs: Sequence[Tensor]) -> Iterator[float]:
    """Yield how far each block's output is from the expert's, as a share of what that one adds.

    `inputs` [B, T, D] are those of the expert's blocks, and of its final norm.
    """
    for layer, (x_BTD, y_BTD) in enumerate(pairwise(inputs)):
        error = (mix.model.through_block(layer, x_BTD) - y_BTD).norm() / (y_BTD - x_BTD).norm()
        yield float(error)


def _states(a: Architecture, layer: int) -> Tensor:
    """Return random inputs [T, D] of an FFN, of the size that a norm gives."""
    return torch.randn(TOKENS, a.hidden_size, generator=torch.Generator().manual_seed(layer))


@dataclass(frozen=True, kw_only=True)
class _Parents:
    """The FFNs of one block that a mixture is made of."""

    routed: Sequence[FeedForward]
    shared: FeedForward | None


def _parents(parts: MixParts, layer: int) -> _Parents:
    """Return the FFNs of one block. Those that a base has are the base's: it may have trained them.

    A routed seed is the last one.
    """
    recipe, base = parts.inputs.recipe, parts.base
    places = [None if base is None else base.position(ref) for ref in recipe.experts]
    checkpoints = list(parts.experts)
    if not recipe.shared_expert:
        places.append(None if base is None else len(base.experts))
        checkpoints.append(parts.seed)
    dense = tensor_names.ffn(layer)

    def load(checkpoint: Manifest, module: str) -> FeedForward:
        a = parts.seed.architecture
        return _load(FeedForward(a), checkpoint, module, parts.blobs)

    def of_place(place: int | None, checkpoint: Manifest) -> FeedForward:
        if base is None or place is None:
            return load(checkpoint, dense)
        return load(base.mix, tensor_names.routed_expert(layer, place))

    shared = None
    if recipe.shared_expert:
        in_base = tensor_names.shared_expert(layer)
        shared = load(parts.seed, dense) if base is None else load(base.mix, in_base)
    routed = [of_place(*pair) for pair in zip(places, checkpoints, strict=True)]
    return _Parents(routed=routed, shared=shared)


def _mixture(x_TD: Tensor, logits_TN: Tensor, recipe: Recipe, parents: _Parents) -> Tensor:
    """Return the outputs [T, D] of the mixture of the parents' FFNs, see `MoE` for the equation."""
    p_TN = logits_TN.softmax(-1)
    p_TK, chosen_TK = p_TN.topk(recipe.experts_per_token)
    if recipe.norm_topk_prob:
        p_TK = p_TK / p_TK.sum(-1, keepdim=True)
    weights_TN = torch.zeros_like(p_TN).scatter(1, chosen_TK, p_TK)
    y_TD = torch.zeros_like(x_TD)
    for weight_T, expert in zip(weights_TN.unbind(1), parents.routed, strict=True):
        y_TD += weight_T[:, None] * expert(x_TD)
    if parents.shared is not None:
        rest_T1 = 1 - weights_TN.sum(1, keepdim=True)
        y_TD += (rest_T1 if recipe.combine == "convex" else 1) * parents.shared(x_TD)
    return y_TD


def _logits(x_TD: Tensor, layer: int, mix: Manifest, blobs: BlobStore) -> Tensor:
    hidden = mix.tensors.get(tensor_names.router_hidden(layer))
    if hidden is not None:
        x_TD = F.relu(x_TD @ tensors.read(blobs, hidden).float().T)
    return x_TD @ tensors.read(blobs, mix.tensors[tensor_names.router_rows(layer)]).float().T


def _load(module: Module, checkpoint: Manifest, name: str, blobs: BlobStore) -> Module:
    """Give a module its tensors in a checkpoint, in float32."""
    state = {
        tensor.removeprefix(f"{name}."): tensors.read(blobs, entry).float()
        for tensor, entry in checkpoint.tensors.items()
        if tensor.startswith(f"{name}.")
    }
    module.load_state_dict(state)
    return module.requires_grad_(False).eval()
