"""Tell which addresses a server may fetch from for strangers: public ones, and what is allowed."""

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

from registry.errors import InvalidInput
from registry.origins import origin_of

# Of IPv6, all unicast addresses of the internet.
PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the internet, and of a single host."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and (ip not in PUBLIC_IPV6 or ip.sixtofour):
        # There, an IPv4 address may be meant.
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


def check(url: str, *, allowed: Collection[str]) -> bool:
    """Return whether the origin of `url` is `allowed`; any other must be https, at its usual port.

    Raises InvalidInput if that is not so, or its host is an IP address that is not public. A name
    is not resolved here.
    """
    try:
        origin = origin_of(url)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    if origin in allowed:
        return True
    if not (origin.startswith("https://") and origin.endswith(":443")):
        raise InvalidInput(
            f"the service does not fetch from {origin}: only https at port 443, and what its"
            " operator allows with NEXUSMIX_IMPORT_ORIGINS"
        )
    host = urlsplit(url).hostname or ""
    if _is_number(host) and not _is_public_number(host):
        raise inward(host)
    return False


def inward(host: str) -> InvalidInput:
    """Return the error of a host that is not public; who asks must not learn its address."""
    return InvalidInput(
        f"the service does not fetch from {host!r}: its address is not public, and its operator"
        " does not allow it with NEXUSMIX_IMPORT_ORIGINS"
    )


def _is_number(host: str) -> bool:
    """Tell whether a host is an IP address in any form, such as 2130706433 for 127.0.0.1."""
    try:
        socket.inet_aton(host)
    except OSError:
        return ":" in host
    return True


def _is_public_number(host: str) -> bool:
    try:
        return is_public(host)
    except ValueError:
        # A form that hides which address is meant.
        return False
