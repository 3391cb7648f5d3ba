"""Chooses the launcher of the settings: this machine, or a Ray cluster."""

from engine.launch.launcher import Launcher, LocalLauncher
from registry.errors import Unavailable
from registry.settings import settings


def configured(*, keeper: int | None = None) -> Launcher:
    """Return the launcher of the settings. Raises Unavailable without its packages.

    Processes on this machine outlive this one if the process `keeper` inherits them.
    """
    if settings().launcher == "local":
        return LocalLauncher(keeper=keeper)
    # Imported here because Ray is an optional dependency and takes seconds to load.
    try:
        from engine.launch.ray_launcher import RayLauncher
    except ImportError as error:
        raise Unavailable(
            f"NEXUSMIX_LAUNCHER is ray, but {error}: install nexusmix with its extra `ray`, which"
            " `./nexusmix` of a checkout does by itself"
        ) from error
    return RayLauncher()
