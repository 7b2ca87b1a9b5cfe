"""selectmq: an MQTT broker in pure Python.

`python3 -m broker` (installed: `selectmq`) starts it as a program. In a program of one's own:

    from selectmq import Broker

    with Broker(port=0) as broker:
        ...  # clients connect to 127.0.0.1, broker.port

(PYTEST_DONT_REWRITE: or pytest would warn a program that has loaded this before it starts pytest.)
"""

from typing import TYPE_CHECKING

from . import python_version
from .version import __version__

python_version.check()  # before anything that an older one cannot read

if TYPE_CHECKING:
    from .embedded import Broker, StartError

__all__ = ["Broker", "StartError", "__version__"]


def __getattr__(name: str) -> object:
    """Load the broker when it is asked for: every pytest on the machine imports this package for its plugin, and the
    program must have its signal handlers before that."""
    if name in ("Broker", "StartError"):
        from . import embedded

        return getattr(embedded, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
