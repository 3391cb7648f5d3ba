"""Make random Llamas of usual shapes, in a store for our code and as files for other tools."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from assembler.assembly.inputs import MixInputs
from assembler.recipes import presets
from assembler.recipes.recipe import Recipe
from assembler.routing.embedder import states_shape
from assembler.routing.router_rows import STATES_CENTER, VECTORS_CENTER
from registry.blobs.blobs import CHUNK_BYTES, LocalBlobs, put_bytes
from registry.checkpoints import exports, manifests, numpy_tensors
from registry.checkpoints.architecture import Architecture, Shape, projection_shapes
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.numpy_tensors import Raw
from registry.checkpoints.tensor_names import is_ffn
from tests import tiny

NUM_EXPERTS = 4
# Size of the vectors of the product's text encoder.
VECTOR_SIZE = 384


def _llama(*, hidden: int, ffn: int, layers: int, heads: int, kv_heads: int) -> Architecture:
    return replace(
        tiny.ARCHITECTURE,
        vocab_size=32_000,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=hidden // heads,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )


SIZES = {
    "tiny": tiny.ARCHITECTURE,
    "56M": _llama(hidden=512, ffn=1408, layers=8, heads=8, kv_heads=4),
    "267M": _llama(hidden=1024, ffn=3072, layers=16, heads=16, kv_heads=8),
    "1.1B": _llama(hidden=2048, ffn=5632, layers=22, heads=32, kv_heads=4),
}


class Llamas:
    """A seed and four experts of one shape.

    Every tensor of `experts` differs from the seed's; in `ffn_experts` only FFNs differ.
    """

    def __init__(self, size: str, *, root: Path) -> None:
        self.architecture = SIZES[size]
        self.blobs = LocalBlobs(root / "blobs")
        self.seed, *self.experts = (self._store(i) for i in range(1 + NUM_EXPERTS))
        self.ffn_experts = [
            replace(e, tensors={n: (e if is_ffn(n) else self.seed).tensors[n] for n in e.tensors})
            for e in self.experts
        ]
        self.projection = self._projection()

    def export(self, folder: Path) -> list[Path]:
        """Write the seed and the experts as Hugging Face folders, and return them in this order."""
        folders = [folder / f"model-{i}" for i in range(1 + NUM_EXPERTS)]
        for manifest, path in zip([self.seed, *self.experts], folders, strict=True):
            exports.export(manifest, self.blobs, path, on_bytes=lambda _: None)
        return folders

    def inputs(self, experts: Sequence[Manifest]) -> MixInputs:
        """Return the inputs that a worker has for a `nexus` mix of these experts."""
        recipe = Recipe(
            **presets.assembly("nexus").model_dump(),
            family="random",
            experts=tuple(f"expert-{i}@1" for i in range(len(experts))),
            projection="random@1",
            finetune=presets.finetune("nexus", num_experts=0),
        )
        vectors = np.random.default_rng(0).standard_normal((len(experts), VECTOR_SIZE))
        return MixInputs(
            recipe=recipe,
            seed_digest=manifests.store(self.blobs, self.seed),
            expert_digests=tuple(manifests.store(self.blobs, expert) for expert in experts),
            documents_digests=(),
            vectors=tuple(vectors.tolist()),
            states_digests=tuple(self._states(number) for number in range(len(experts))),
            projection_digest=manifests.store(self.blobs, self.projection),
        )

    def _store(self, number: int) -> Manifest:
        random = np.random.Generator(np.random.SFC64(number))
        config = self.architecture.to_config() | {"dtype": "bfloat16", "bos_token_id": 1}
        files = tiny.tokenizer_files()
        return Manifest(
            config=config | {"eos_token_id": 2},
            tensors={
                name: self._put(_random_bits(random, shape), shape)
                for name, shape in self.architecture.tensor_shapes().items()
            },
            files={name: put_bytes(self.blobs, data) for name, data in files.items()},
        )

    def _projection(self) -> Manifest:
        random = np.random.Generator(np.random.SFC64(100))
        shapes = projection_shapes(hidden := self.architecture.hidden_size, hidden + 1)
        num_layers = self.architecture.num_hidden_layers
        tensors = {
            f"model.layers.{layer}.mlp.gate.{name}": self._put(_random_bits(random, shape), shape)
            for layer in range(num_layers)
            for name, shape in shapes.items()
        }
        for name, shape in {
            STATES_CENTER: (num_layers, hidden),
            VECTORS_CENTER: (VECTOR_SIZE,),
        }.items():
            tensors[name] = numpy_tensors.write(
                self.blobs, np.zeros(shape, np.float32), dtype="F32"
            )
        config = {"num_hidden_layers": num_layers, "training": {"own_weight": 0.05}}
        return Manifest(config=config, tensors=tensors)

    def _states(self, number: int) -> str:
        random = np.random.default_rng(number)
        shape = states_shape(self.architecture.num_hidden_layers, self.architecture.hidden_size)
        values = random.standard_normal(shape, np.float32)
        return numpy_tensors.write(self.blobs, values, dtype="F32").digest

    def _put(self, bits: Raw, shape: Shape) -> TensorEntry:
        data = memoryview(bits.tobytes())
        pieces = range(0, len(data), CHUNK_BYTES)
        digest = self.blobs.put(bytes(data[start : start + CHUNK_BYTES]) for start in pieces)
        return TensorEntry("BF16", shape, digest)


def _random_bits(random: np.random.Generator, shape: Shape) -> Raw:
    """Return the bits of random bfloat16 numbers of both signs between 1/128 and 2."""
    bits = random.integers(0, 1 << 16, shape, np.uint16)
    return (bits & np.uint16(0x83FF)) | np.uint16(0x3C00)


def save(inputs: MixInputs, path: Path) -> None:
    """Write inputs to a file; `load` reads it."""
    fields = vars(inputs) | {"recipe": inputs.recipe.model_dump(mode="json")}
    path.write_text(json.dumps(fields))


def load(path: Path) -> MixInputs:
    """Read the inputs that `save` has written."""
    fields = json.loads(path.read_text())
    return MixInputs(**fields | {"recipe": Recipe.model_validate(fields["recipe"])})
