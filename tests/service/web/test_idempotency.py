"""A repeated request is carried out once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy.orm import Session

from registry.database import db
from registry.errors import InvalidInput
from service.tables import IdempotentRequest
from service.web.idempotency import LIFETIME, Repeatable

BODY = {"name": "law-and-code"}


def once(session: Session, repeatable: Repeatable, *, body: Any = BODY, answer: int) -> Any:
    return repeatable.once(session, body=body, status=202, make=lambda: {"answer": answer})


def test_a_repeated_request_gets_the_first_answer(session: Session) -> None:
    repeatable = Repeatable(1, "/api/v1/mixes", "k")
    assert once(session, repeatable, answer=1) == {"answer": 1}
    assert once(session, repeatable, answer=2) == {"answer": 1}


def test_a_key_belongs_to_its_caller_and_path(session: Session) -> None:
    once(session, Repeatable(1, "/api/v1/mixes", "k"), answer=1)
    assert once(session, Repeatable(2, "/api/v1/mixes", "k"), answer=2) == {"answer": 2}
    assert once(session, Repeatable(1, "/api/v1/deployments", "k"), answer=3) == {"answer": 3}


def test_without_a_key_every_request_counts(session: Session) -> None:
    repeatable = Repeatable(1, "/api/v1/mixes", None)
    assert once(session, repeatable, answer=1) == {"answer": 1}
    assert once(session, repeatable, answer=2) == {"answer": 2}


def test_another_body_under_the_same_key_is_refused(session: Session) -> None:
    repeatable = Repeatable(1, "/api/v1/mixes", "k")
    once(session, repeatable, answer=1)
    with pytest.raises(InvalidInput, match="another body"):
        once(session, repeatable, body={"name": "other"}, answer=2)


def test_a_key_expires_after_a_day(session: Session) -> None:
    repeatable = Repeatable(1, "/api/v1/mixes", "k")
    once(session, repeatable, answer=1)
    session.query(IdempotentRequest).one().created_at -= LIFETIME + timedelta(seconds=1)
    session.flush()
    assert once(session, repeatable, answer=2) == {"answer": 2}


def test_a_failed_request_may_be_repeated(database: str) -> None:
    repeatable = Repeatable(1, "/api/v1/mixes", "k")

    def fail() -> dict[str, Any]:
        raise InvalidInput("no")

    with pytest.raises(InvalidInput), db.transaction() as session:
        repeatable.once(session, body=BODY, status=202, make=fail)
    with db.transaction() as session:
        assert once(session, repeatable, answer=1) == {"answer": 1}


def test_concurrent_requests_are_carried_out_once(database: str) -> None:
    numbers = count()

    def request(_: int) -> Any:
        with db.transaction() as session:
            return once(session, Repeatable(1, "/api/v1/mixes", "k"), answer=next(numbers))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(request, range(8)))
    assert len({answer["answer"] for answer in answers}) == 1
