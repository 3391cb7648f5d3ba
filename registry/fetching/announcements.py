"""The announcement of a version that a worker fetches."""

from dataclasses import dataclass

from registry.checkpoints.manifests import Manifest
from registry.fetching.addresses import HubAddress, UrlAddress
from registry.imports.sources import Source


@dataclass(frozen=True, kw_only=True)
class AddressAnnouncement:
    """An address, as `text` and as it was read. What lies there is checked once it is fetched."""

    text: str
    address: HubAddress | UrlAddress

    def source(self) -> Source:
        """Return the source as the version keeps it."""
        return Source(kind="address", address=self.text)

    def check(self, seed: Manifest) -> str:
        """Describe it in a sentence; nothing is known of it yet."""
        return f"from {self.address}"
