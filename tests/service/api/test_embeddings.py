"""`/v1/embeddings`, with OpenAI's client over real connections."""

import openai
import pytest
from starlette.testclient import TestClient

from assembler.routing.embedder import EMBEDDER
from assembler.routing.numpy_encoder import query_encoder

TEXTS = ["The court dismissed the appeal.", "fn main() {}"]


def ask(client: TestClient, **fields: object) -> tuple[int, dict[str, object]]:
    answer = client.post("/v1/embeddings", json={"model": EMBEDDER, "input": TEXTS, **fields})
    return answer.status_code, answer.json().get("error", {})


def test_openais_client_gets_the_vectors_of_its_texts(address: str, key: str) -> None:
    with openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0) as client:
        # The client asks for base64 and decodes it.
        answer = client.embeddings.create(model=EMBEDDER, input=TEXTS)
        [numbers] = client.embeddings.create(
            model=EMBEDDER, input=TEXTS[0], encoding_format="float"
        ).data
    for text, found in zip(TEXTS, answer.data, strict=True):
        assert found.embedding == pytest.approx(query_encoder().embed(text), abs=1e-7)
    assert [found.index for found in answer.data] == [0, 1]
    assert numbers.embedding == query_encoder().embed(TEXTS[0])
    assert answer.usage.prompt_tokens == sum(map(query_encoder().num_tokens, TEXTS))


def test_another_model_is_not_found(client: TestClient) -> None:
    status, error = ask(client, model="text-embedding-3-small")
    assert status == 404
    assert error["message"] == (
        "no model 'text-embedding-3-small' embeds texts: use 'all-MiniLM-L6-v2'"
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"dimensions": 256}, "dimensions"),
        ({"input": []}, "input"),
        ({"input": ["a"] * 65}, "input"),
        ({"input": " "}, "input"),
        ({"input": [[1, 2, 3]]}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    client: TestClient, fields: dict[str, object], param: str
) -> None:
    status, error = ask(client, **fields)
    assert status in (400, 422)
    assert str(error["param"]).startswith(param)
