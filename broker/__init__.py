"""selectmq: an MQTT broker in pure Python.

`python -m broker` starts it as a program. In a program of one's own:

    from broker import Broker

    with Broker(port=0) as broker:
        ...  # clients connect to 127.0.0.1, broker.port
"""

from broker.embedded import Broker, StartError
from broker.version import __version__

__all__ = ["Broker", "StartError", "__version__"]
