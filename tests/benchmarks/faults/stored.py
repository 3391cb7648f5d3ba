"""Faults in what is stored: checkpoints of an assembly or a finetune, and bytes under a digest."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from engine.vllm_plugin import tensors
from registry.checkpoints import tensor_names
from registry.checkpoints.manifests import Manifest
from tests.benchmarks.faults.planted import Checkpoint, Plot, Store, poisoned

# A small change of a chat template, as an editor or a newer version of a file makes it.
TEMPLATE_OF, TEMPLATE_NEW = "<|im_start|>", "<|im_begin|>"
GENERATION = "generation_config.json"


def scaled(part: str, factor: float, plot: Plot) -> Manifest:
    return plot.with_tensors({f"{plot.block}{part}.weight": lambda x: x * factor})


def swapped_experts(plot: Plot) -> Manifest:
    first, second = (f"{plot.block}mlp.experts.{number}." for number in (0, 1))
    return plot.exchanged(first, second)


def blocks_exchanged(plot: Plot) -> Manifest:
    return plot.exchanged(f"{plot.block}mlp.experts.", "model.layers.0.mlp.experts.")


def zeroed_router_row(plot: Plot) -> Manifest:
    return plot.with_rows(f"{plot.block}mlp.gate.weight", lambda rows: rows[0].zero_())


def exchanged_router_rows(plot: Plot) -> Manifest:
    return plot.with_rows(
        f"{plot.block}mlp.gate.weight", lambda rows: rows[:2].copy_(rows[:2].flip(0))
    )


def softer_routers(plot: Plot) -> Manifest:
    names = [name for name in plot.mix.tensors if tensor_names.is_router_rows(name)]
    return plot.with_tensors({name: lambda rows: rows / 2 for name in names})


def stale_weights(plot: Plot) -> Manifest:
    """Replace an expert by the seed, as it was before its training."""
    entries = dict(plot.mix.tensors)
    for name, entry in plot.subject.checkpoints.seed.tensors.items():
        if tensor_names.is_ffn(name):
            entries[tensor_names.as_routed_expert(name, 0)] = entry
    return replace(plot.mix, tensors=entries)


def older_version(plot: Plot) -> Manifest:
    """Replace an expert by what it was halfway through its training."""
    seed = plot.subject.checkpoints.seed
    changes = {}
    for name in seed.tensors:
        if tensor_names.is_ffn(name):
            before = plot.read(name, of=seed)
            changes[tensor_names.as_routed_expert(name, 1)] = partial(
                torch.lerp, before, weight=0.5
            )
    return plot.with_tensors(changes)


def dropped_shared_expert(plot: Plot) -> Manifest:
    names = [n for n in plot.mix.tensors if n.endswith("shared_expert.down_proj.weight")]
    return plot.with_tensors(dict.fromkeys(names, torch.zeros_like))


def inverted_shared_expert(plot: Plot) -> Manifest:
    return scaled("mlp.shared_expert.down_proj", -1, plot)


def permuted_rows(plot: Plot) -> Manifest:
    return plot.with_tensors(
        {f"{plot.block}mlp.experts.1.down_proj.weight": lambda rows: rows.roll(1, 0)}
    )


def exchanged_gate(plot: Plot) -> Manifest:
    return plot.exchanged(
        f"{plot.block}mlp.experts.0.gate_proj.", f"{plot.block}mlp.experts.0.up_proj."
    )


def other_norm(plot: Plot) -> Manifest:
    name = f"{plot.block}input_layernorm.weight"
    other = plot.mix.tensors["model.layers.0.input_layernorm.weight"]
    return replace(plot.mix, tensors=plot.mix.tensors | {name: other})


def permuted_heads(plot: Plot) -> Manifest:
    head = plot.mix.architecture.head_dim
    return plot.with_tensors({f"{plot.block}self_attn.q_proj.weight": lambda x: x.roll(head, 0)})


def zeroed_embedding(plot: Plot) -> Manifest:
    return plot.with_rows(tensor_names.EMBEDDINGS, lambda rows: rows[len(rows) // 2].zero_())


def shifted_embeddings(plot: Plot) -> Manifest:
    return plot.with_tensors({tensor_names.EMBEDDINGS: lambda rows: rows.roll(1, 0)})


def untied(plot: Plot) -> Manifest:
    """Give the mix a head of its own, where the seed's embeddings are the head."""
    name = f"{tensor_names.LM_HEAD}{tensor_names.WEIGHT}"
    head = tensors.write(plot.store, plot.read(tensor_names.EMBEDDINGS) * 1.01)
    config = plot.mix.config | {"tie_word_embeddings": False}
    return replace(plot.mix, config=config, tensors=plot.mix.tensors | {name: head})


def in_eight_bits(plot: Plot) -> Manifest:
    def rounded(weight: Tensor) -> Tensor:
        return weight.to(torch.float8_e4m3fn).to(weight.dtype)

    return plot.with_tensors({f"{plot.block}mlp.experts.2.up_proj.weight": rounded})


def exchanged_domains(plot: Plot) -> Manifest:
    """Exchange the domain embeddings of two experts, and no router row."""
    return plot.with_rows(
        tensor_names.DOMAIN_EMBEDDINGS, lambda x_LNM: x_LNM[:, :2].copy_(x_LNM[:, :2].flip(1))
    )


def wrong_rope(plot: Plot) -> Manifest:
    return plot.with_config(**rope(plot))


def one_nan(plot: Plot) -> Manifest:
    return plot.with_tensors({f"{plot.block}mlp.experts.1.up_proj.weight": poisoned})


def missing_tensors(plot: Plot) -> Manifest:
    """Leave out the second half of the blocks, as if one of two shards were missing."""
    kept = {
        name: entry
        for name, entry in plot.mix.tensors.items()
        if not tensor_names.is_in_block(name) or int(name.split(".")[2]) < plot.layer
    }
    return replace(plot.mix, tensors=kept)


def wrong_tokenizer(plot: Plot) -> Manifest:
    return plot.with_file("tokenizer.json", other_tokenizer(plot.file("tokenizer.json")))


def wrong_template(plot: Plot) -> Manifest:
    return plot.with_file("tokenizer_config.json", other_template(plot))


def stale_rows(plot: Plot) -> Manifest:
    """Keep a router's rows as they were before the finetune trained its projection."""
    name = f"{plot.block}mlp.gate.weight"
    before = plot.subject.assembled.tensors[name]
    return replace(plot.mix, tensors=plot.mix.tensors | {name: before})


def nan_in_queries(plot: Plot) -> Manifest:
    return plot.with_tensors({f"{plot.block}self_attn.q_proj.weight": poisoned})


def applied_twice(plot: Plot) -> Manifest:
    """Apply what the finetune changed in attention twice, as a merge that is repeated."""

    def twice(before: Tensor, after: Tensor) -> Tensor:
        return (2 * after.float() - before.float()).to(after.dtype)

    before = plot.subject.assembled
    return plot.with_tensors(
        {
            name: partial(twice, plot.read(name, of=before))
            for name in plot.mix.tensors
            if tensor_names.is_attention(name)
        }
    )


def half_written(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def one_byte(data: bytes) -> bytes:
    return data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]


def _of_expert(change: Callable[[bytes], bytes], plot: Plot) -> None:
    plot.overwrite(f"{plot.block}mlp.experts.2.down_proj.weight", change)


def _fault(name: str, where: str, plant: Callable[[Plot], Manifest]) -> Checkpoint:
    return Checkpoint(name=name, where=where, plant=plant)


ASSEMBLED = (
    _fault(
        "wrong scale in one layer",
        "attention's output in one block, times two",
        partial(scaled, "self_attn.o_proj", 2),
    ),
    _fault("experts swapped", "two FFNs of one block under each other's name", swapped_experts),
    _fault("router row zeroed", "one expert's row, in one block", zeroed_router_row),
    _fault("stale weights", "one expert as before its training", stale_weights),
    _fault("dropped shared expert", "its output is zero in all blocks", dropped_shared_expert),
    _fault("wrong rope", "rope_theta of the config", wrong_rope),
    _fault(
        "sum in place of convex",
        "combine of the config",
        lambda plot: plot.with_config(combine="sum"),
    ),
    _fault(
        "an expert disabled",
        "disabled_experts of the config",
        lambda plot: plot.with_config(disabled_experts=[0]),
    ),
    _fault(
        "top-k renormalized",
        "norm_topk_prob of the config",
        lambda plot: plot.with_config(norm_topk_prob=True),
    ),
    _fault("one NaN", "in one expert's FFN of one block", one_nan),
    _fault("half-loaded shard", "half of the blocks missing", missing_tensors),
    _fault("wrong tokenizer", "two words of the vocabulary swapped", wrong_tokenizer),
    _fault("chat template changed", "of the checkpoint's files", wrong_template),
    _fault("blocks exchanged", "the experts of two blocks", blocks_exchanged),
    _fault("router rows exchanged", "of two experts, in one block", exchanged_router_rows),
    _fault("routers half as sure", "all rows, times a half", softer_routers),
    _fault("older version", "one expert halfway through its training", older_version),
    _fault("shared expert inverted", "its output in one block, times -1", inverted_shared_expert),
    _fault("rows permuted", "of one expert's output in one block", permuted_rows),
    _fault("gate and inner weight exchanged", "of one expert in one block", exchanged_gate),
    _fault("norm of another block", "before attention", other_norm),
    _fault("heads permuted", "queries of one block", permuted_heads),
    _fault("embedding of one token zeroed", "model.embed_tokens", zeroed_embedding),
    _fault("embeddings of the next token", "model.embed_tokens", shifted_embeddings),
    _fault("head no longer tied", "a head of its own, 1 % larger", untied),
    _fault("one matrix in eight bits", "of one expert in one block", in_eight_bits),
    _fault("domain embeddings exchanged", "of two experts", exchanged_domains),
    _fault(
        "wrong end of text", "eos_token_id of the config", lambda p: p.with_config(eos_token_id=5)
    ),
    _fault(
        "other generation config",
        GENERATION,
        lambda plot: plot.with_file(GENERATION, b'{"temperature": 2.0}'),
    ),
    _fault(
        "two experts for a token",
        "num_experts_per_tok of the config",
        lambda plot: plot.with_config(num_experts_per_tok=2),
    ),
    _fault(
        "another epsilon",
        "rms_norm_eps of the config",
        lambda plot: plot.with_config(rms_norm_eps=1e-3),
    ),
)
FINETUNED = tuple(
    replace(fault, candidate="finetuned")
    for fault in (
        _fault(
            "finetune moved an expert",
            "one matrix that it does not train, times 1.01",
            partial(scaled, "mlp.experts.0.up_proj", 1.01),
        ),
        _fault("rows not folded again", "one router as before its finetune", stale_rows),
        _fault("NaN after the finetune", "in queries that it trains", nan_in_queries),
        _fault("finetune applied twice", "to attention, which it trains", applied_twice),
        _fault(
            "attention of another block",
            "values that the finetune trains",
            lambda plot: plot.exchanged(
                f"{plot.block}self_attn.v_proj.", "model.layers.0.self_attn.v_proj."
            ),
        ),
    )
)
STORES = (
    Store(
        name="half-written blob",
        where="the second half of one matrix is zero",
        plant=partial(_of_expert, half_written),
    ),
    Store(
        name="blob cut off",
        where="one matrix has half of its bytes",
        plant=partial(_of_expert, lambda data: data[: len(data) // 2]),
    ),
    Store(name="one bit", where="of one matrix", plant=partial(_of_expert, one_byte)),
)


def rope(plot: Plot) -> dict[str, object]:
    """Return fields of a config whose positions turn at another rate."""
    theta = plot.mix.architecture.rope_theta / 10
    return {
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
    }


def other_template(plot: Plot) -> bytes:
    tokenizer_config = json.loads(plot.file("tokenizer_config.json"))
    template = tokenizer_config.get("chat_template", "{{ messages[-1]['content'] }}")
    changed = template.replace(TEMPLATE_OF, TEMPLATE_NEW, 1)
    return json.dumps(tokenizer_config | {"chat_template": changed}).encode()


def other_tokenizer(data: bytes) -> bytes:
    """Swap two letters of the vocabulary, as in another build of the tokenizer."""
    tokenizer = json.loads(data)
    vocabulary, (first, second) = tokenizer["model"]["vocab"], "ea"
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    return json.dumps(tokenizer).encode()
