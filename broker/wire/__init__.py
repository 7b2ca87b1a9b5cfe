"""Bytes <-> meaning: the MQTT control packets, without any state or I/O."""
