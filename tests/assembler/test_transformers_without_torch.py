"""Transformers reads configs and tokenizers without torch, which can still be loaded afterwards."""

import subprocess
import sys
from pathlib import Path

from tests import tiny


def run(code: str, *arguments: str) -> str:
    """Run a program in a fresh process and return what it prints."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_tokenizer_is_read_as_with_torch(tmp_path: Path) -> None:
    tiny.write_checkpoint(tmp_path)
    read = (
        "import sys\n"
        "{first}\n"
        "from transformers import AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True)\n"
        "print(tokenizer, tokenizer('Hello')['input_ids'], 'torch' in sys.modules)\n"
    )
    without = read.format(first="from assembler import transformers_without_torch as t\nt.load()")
    light, whole = run(without, str(tmp_path)), run(read.format(first=""), str(tmp_path))
    assert light.endswith("False")
    assert light.removesuffix("False") == whole.removesuffix("True")


def test_a_checkpoint_is_checked_without_torch(tmp_path: Path) -> None:
    folder = tiny.write_checkpoint(tmp_path / "seed")
    (folder / "generation_config.json").write_text('{"eos_token_id": 0}')
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from assembler import transformers_without_torch\n"
        "transformers_without_torch.load()\n"
        "from assembler.jobs import checkpoint_checks\n"
        "from registry.blobs.blobs import LocalBlobs\n"
        "from registry.ingest.checkpoint_folder import CheckpointFolder\n"
        "blobs = LocalBlobs(Path(sys.argv[2]))\n"
        "manifest = CheckpointFolder.read(Path(sys.argv[1])).keep(blobs)\n"
        "checkpoint_checks.check_readers(manifest, blobs, texts=['a text'])\n"
        "print('generation_config.json' in manifest.files, 'torch' in sys.modules)\n"
    )
    assert run(code, str(folder), str(tmp_path / "blobs")) == "True False"


def test_torch_can_be_loaded_afterwards() -> None:
    code = (
        "from assembler import transformers_without_torch\n"
        "transformers_without_torch.load()\n"
        "import torch\n"
        "print(torch.ones(2).sum().item())\n"
    )
    assert run(code) == "2.0"


def test_a_process_that_has_torch_keeps_it() -> None:
    code = (
        "import torch\n"
        "from assembler import transformers_without_torch\n"
        "transformers_without_torch.load()\n"
        "from transformers.utils import is_torch_available\n"
        "print(is_torch_available())\n"
    )
    assert run(code) == "True"
