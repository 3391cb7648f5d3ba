"""The NumPy encoder equals the torch encoder."""

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


def test_vectors_equal_those_of_the_torch_encoder() -> None:
    vectors = torch.tensor([query_encoder().embed(text) for text in TEXTS])
    torch.testing.assert_close(vectors, Encoder().embed(TEXTS), atol=1e-6, rtol=0)


def test_encoding_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys\n"
        "from assembler.routing.numpy_encoder import query_encoder\n"
        "query_encoder().embed('a text')\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
