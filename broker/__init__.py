"""selectmq: an MQTT broker in pure Python.

`python3 -m broker` (installed: `selectmq`) starts it as a program. In a program of one's own:

    from selectmq import Broker

    with Broker(port=0) as broker:
        ...  # clients connect to 127.0.0.1, broker.port
"""

from .embedded import Broker, StartError
from .version import __version__

__all__ = ["Broker", "StartError", "__version__"]
