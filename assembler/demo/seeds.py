"""The seeds that the demo can start from, by the names of their families."""

from types import MappingProxyType

from assembler.demo import gemma3, qwen2_5_coder, smollm2
from assembler.demo.demo_seed import DemoSeed
from registry.errors import InvalidInput

DEFAULT = smollm2.SEED
SEEDS = MappingProxyType({seed.name: seed for seed in (DEFAULT, qwen2_5_coder.SEED, gemma3.SEED)})


def find(name: str) -> DemoSeed:
    """Return the seed of a family. Raises InvalidInput with the names of all."""
    if name not in SEEDS:
        raise InvalidInput(f"the demo has no family {name!r}; it has {', '.join(SEEDS)}")
    return SEEDS[name]
