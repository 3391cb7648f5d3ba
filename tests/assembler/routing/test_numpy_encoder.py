"""The light encoder is the heavy one, number by number."""

import subprocess
import sys

import torch

from assembler.routing.numpy_encoder import query_encoder
from assembler.routing.text_encoder import Encoder

TEXTS = [
    "The court dismissed the appeal.",
    "x",
    'fn main() { println!("Grüße, 世界"); }\n' * 60,
]


def test_it_gives_what_the_encoder_gives() -> None:
    vectors = torch.tensor([query_encoder().embed(text) for text in TEXTS])
    torch.testing.assert_close(vectors, Encoder().embed(TEXTS), atol=1e-6, rtol=0)


def test_it_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from assembler.routing.numpy_encoder import query_encoder\n"
        "query_encoder().embed('a text')\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
