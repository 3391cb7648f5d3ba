"""Load transformers without torch, for a process that only reads configs and tokenizers with it.

Where torch is installed, `import transformers` loads it with SymPy and its compilers, even for a
tokenizer: seven of the nine seconds of CPU time that the check of an expert took.
"""

import sys


def load() -> None:
    """Import what reads configs, tokenizers and generation configs, as if torch were missing.

    It holds for the whole process: transformers remembers that there is no torch, so its networks
    cannot be used afterwards. Torch itself can be. Does nothing where either is loaded already.
    """
    if "torch" in sys.modules or "transformers" in sys.modules:
        return
    # Python then finds no module of this name (importlib.util.find_spec).
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from transformers import AutoTokenizer, GenerationConfig, LlamaConfig  # noqa: F401
    finally:
        del sys.modules["torch"]
