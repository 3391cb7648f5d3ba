"""The address of a database names our driver, and a wrong one is refused without its secret."""

import pytest

from registry.database_address import with_driver


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_usual_form_names_our_driver(scheme: str) -> None:
    assert with_driver(f"{scheme}://me:word@host/name") == "postgresql+psycopg://me:word@host/name"


@pytest.mark.parametrize(
    "url", ["", "garbage", "postgresql://", "sqlite:///file", "mysql://me:hush@host/name"]
)
def test_another_database_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected postgresql") as refused:
        with_driver(url)
    assert "hush" not in str(refused.value)
