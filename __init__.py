"""driftloop: watch models through Kafka, know when they drift, and repair them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .settings import load_settings as load_settings
    from .streams.client import Client as Client
    from .streams.client import ClientConfig as ClientConfig
    from .streams.client import NullClient as NullClient
    from .streams.client import RecordingClient as RecordingClient
    from .streams.watcher import ModelWatcher as ModelWatcher
    from .streams.watcher import PromotedModel as PromotedModel

__version__ = "0.1.0"
__all__ = ["Client", "ClientConfig", "ModelWatcher", "NullClient", "PromotedModel", "RecordingClient", "load_settings"]


def __getattr__(name: str) -> Any:
    # On first use only: `import driftloop` stays light for those who want one room.
    if name == "load_settings":
        from .settings import load_settings

        return load_settings
    if name in ("ModelWatcher", "PromotedModel"):
        from .streams import watcher

        return getattr(watcher, name)
    if name in __all__:
        from .streams import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
