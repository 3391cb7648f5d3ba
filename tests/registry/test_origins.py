"""Origins of addresses."""

import pytest

from registry.origins import origin_of


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Example.com/a?b=1", "https://example.com:443"),
        ("http://10.0.0.5", "http://10.0.0.5:80"),
        ("https://[2001:db8::1]:8443/", "https://[2001:db8::1]:8443"),
    ],
)
def test_scheme_host_and_port_are_told(url: str, origin: str) -> None:
    assert origin_of(url) == origin_of(origin) == origin


@pytest.mark.parametrize("url", ["", "example.com", "ftp://example.com", "https://", "http://a:b"])
def test_what_is_no_address_has_none(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the sentence is Python's for some
        origin_of(url)
