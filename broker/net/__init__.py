"""Bytes and threads: the event loop, sockets and workers. Nothing here knows MQTT."""
