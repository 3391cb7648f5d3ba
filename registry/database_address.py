"""The form of the address of a PostgreSQL."""

DRIVER = "postgresql+psycopg"


def with_driver(url: str) -> str:
    """Return the address of a PostgreSQL with the name of our driver. Raises ValueError."""
    scheme, separator, rest = url.partition("://")
    if not separator or not rest or scheme not in ("postgres", "postgresql", DRIVER):
        # The value may hold a password, so it is not repeated.
        raise ValueError(f"expected {DRIVER}://USER:PASSWORD@HOST/DATABASE")
    return f"{DRIVER}://{rest}"
