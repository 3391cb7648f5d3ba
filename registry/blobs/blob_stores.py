"""Open the blob store of the settings: a local folder, or an S3 bucket with a local cache."""

from functools import cache

from registry.blobs.blobs import LocalBlobs, StoreUpkeep
from registry.settings import Settings, settings


def open_store(config: Settings) -> StoreUpkeep:
    """Open the store that `config` describes."""
    if config.s3_bucket is None:
        return LocalBlobs(config.blobs_path, reserve_bytes=config.disk_reserve_bytes)
    from registry.blobs.s3 import S3Blobs  # boto3 costs half a second and few installations use it

    return S3Blobs.from_settings(config)


@cache
def store() -> StoreUpkeep:
    """Return the store of this process's settings; always the same object."""
    return open_store(settings())
