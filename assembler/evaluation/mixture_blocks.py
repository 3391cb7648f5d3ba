"""Hold what a mix computes against its parents, without text and without its own manifest.

Each block is computed twice: by the reference network with the mix's tensors, and by the equation
of the mixture with the tensors of seed and experts. The equation is written out here once more, so
that an error of assembly, names, config or network shows.

Letters at the end of a tensor's name: T tokens, D hidden, N routed experts, K experts per token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.tensor_names import is_ffn
from registry.errors import Problem, pointer

TOKENS = 32
# Of float32 sums in another order, as a share of the largest number.
MAX_RELATIVE_ERROR = 1e-4
# In nats, of a token's log-probability. Float32 in another order stays below 1e-4 here.
MAX_DISTANCE = 1e-3

Module = TypeVar("Module", bound=nn.Module)


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


def distances_to_experts(checkpoints: GateCheckpoints, blobs: BlobStore) -> dict[str, float]:
    """Return how far the mix is from each expert, by name, while all tokens are routed to it.

    It is the largest difference of log-probabilities, in nats. Where experts changed more than FFNs
    the mix cannot be one of them, and where outputs are added up the seed's part stays: then the
    result is empty.
    """
    mix, experts = checkpoints.assembled, checkpoints.experts
    a = mix.architecture
    adds_seed = a.shared_expert and a.combine != "convex"
    if adds_seed or checkpoints.base is not None or not _only_ffns_differ(list(experts.values())):
        return {}
    return {
        name: _distance(_routed_to(mix, number), expert, blobs)
        for number, (name, expert) in enumerate(experts.items())
    }


def _only_ffns_differ(experts: Sequence[Manifest]) -> bool:
    first = experts[0]
    return all(
        is_ffn(name) or expert.tensors[name] == entry
        for expert in experts
        for name, entry in first.tensors.items()
    )


def _routed_to(mix: Manifest, number: int) -> Manifest:
    """Return the mix with all experts disabled but one."""
    others = [i for i in range(mix.architecture.num_experts) if i != number]
    return replace(mix, config=mix.config | {"disabled_experts": others})


@torch.inference_mode()
def _distance(mix: Manifest, expert: Manifest, blobs: BlobStore) -> float:
    a = expert.architecture
    generator = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(a.vocab_size, (1, TOKENS), generator=generator)
    logprobs = [
        Network.from_manifest(manifest, blobs, dtype=torch.float32)(tokens_BT).log_softmax(-1)
        for manifest in (mix, expert)
    ]
    return float((logprobs[0] - logprobs[1]).abs().max())


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
