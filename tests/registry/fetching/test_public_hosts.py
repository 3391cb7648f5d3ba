"""What a server may fetch from for strangers."""

import pytest

from registry.errors import InvalidInput
from registry.fetching import public_hosts
from registry.origins import origin_of


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07::1"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert public_hosts.is_public(address)


INWARD = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:8.8.8.8",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", INWARD)
def test_all_other_addresses_are_not(address: str) -> None:
    assert not public_hosts.is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        *(f"[{a}]" if ":" in a else a for a in INWARD if "%" not in a),
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0",
    ],
)
def test_a_host_that_is_a_number_and_not_public_is_refused(host: str) -> None:
    with pytest.raises(InvalidInput, match="its address is not public"):
        public_hosts.check(f"https://{host}/a.gguf", allowed=())


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.gguf",
        "https://example.com:8443/a.gguf",
        "http://example.com:443/a.gguf",
    ],
)
def test_only_https_at_its_port_is_taken(url: str) -> None:
    with pytest.raises(InvalidInput, match="only https at port 443"):
        public_hosts.check(url, allowed=())
    assert public_hosts.check(url, allowed=(origin_of(url),))


def test_a_name_is_left_to_who_resolves_it() -> None:
    assert not public_hosts.check("https://example.com/a.gguf", allowed=())
    assert public_hosts.check("https://10.0.0.1/", allowed=("https://10.0.0.1:443",))
    with pytest.raises(InvalidInput, match="must begin with https"):
        public_hosts.check("ftp://example.com", allowed=())
