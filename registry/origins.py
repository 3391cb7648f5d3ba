"""Origins of addresses: scheme, host and port (RFC 6454)."""

from urllib.parse import urlsplit

PORTS = {"https": 443, "http": 80}


def origin_of(url: str) -> str:
    """Return `SCHEME://HOST:PORT` of an address. Raises ValueError if it has none."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError(f"{url!r} must begin with https:// or http:// and a host")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or PORTS[parts.scheme]}"
