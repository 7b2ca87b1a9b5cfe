"""The broker's own topics, `$SYS/broker/...`, with Mosquitto's names.

Owns: which numbers are published, and the load averages. Must not know: when they are asked for.
"""

import math

from .exchange import Exchange

#: Minutes over which the load averages go.
_AVERAGES = (1, 5, 15)


class SysTopics:
    """Publishes the state of an exchange as retained messages."""

    def __init__(self, exchange: Exchange, version: str, started: float) -> None:
        """`started` is a time of the same clock as `publish`'s `now`."""
        self._exchange = exchange
        self._started = started
        self._last = started
        self._published: dict[str, str] = {}
        self._before: dict[str, int] = {}
        self._load: dict[str, list[float]] = {}
        self._version = version

    def _memory(self) -> dict[str, object]:
        """What is held, beside its limit, in all and by part."""
        memory = self._exchange.memory
        values: dict[str, object] = {
            "memory/bytes": memory.size,
            "memory/bytes/limit": self._exchange.limits.max_memory,
        }
        for name, part in memory.parts.items():
            values[f"memory/{name}/bytes"] = part.size
            values[f"memory/{name}/bytes/limit"] = part.limit
            values[f"memory/{name}/refused"] = part.refused
        return values

    def _values(self, now: float) -> dict[str, object]:
        """What is so at this moment, and what has been counted since the start."""
        exchange = self._exchange
        stats = exchange.stats
        limits = exchange.limits
        queues = [session.queue for session in exchange.sessions.values() if session.queue is not None]
        queued = sum(queue.count for queue in queues)
        queued_bytes = sum(queue.size for queue in queues)
        connected = exchange.sessions.connected
        return {
            "version": f"selectmq version {self._version}",
            "uptime": f"{int(now - self._started)} seconds",
            "clients/total": len(exchange.sessions),
            "clients/connected": connected,
            "clients/active": connected,
            "clients/disconnected": len(exchange.sessions) - connected,
            "clients/inactive": len(exchange.sessions) - connected,
            "clients/maximum": stats.maximum,
            "clients/expired": stats.expired,
            "clients/refused": stats.refused,
            "messages/received": stats.messages_received,
            "messages/sent": stats.publish_sent + stats.other_sent,
            "messages/stored": queued + exchange.retained.count,
            "publish/messages/received": stats.messages_received - stats.other_received,
            "publish/messages/sent": stats.publish_sent,
            "publish/messages/dropped": stats.dropped,
            "publish/messages/denied": stats.denied,
            "store/messages/count": queued + exchange.retained.count,
            "store/messages/bytes": queued_bytes + exchange.retained.size,
            "store/bytes": exchange.journal.stored,
            "store/bytes/limit": limits.max_store,
            "store/commits": exchange.journal.commits,
            "store/failed": int(exchange.journal.failed),
            "sessions/count": exchange.quotas.sessions,
            "sessions/count/limit": limits.max_sessions,
            "retained messages/count": exchange.retained.count,
            "retained messages/count/limit": limits.max_retained,
            "retained messages/bytes": exchange.retained.memory,
            "retained messages/bytes/limit": limits.max_retained_bytes,
            **self._memory(),
            "subscriptions/count": exchange.router.count,
            "shared_subscriptions/count": len(exchange.shares),
            "bytes/received": stats.bytes_received,
            "bytes/sent": stats.bytes_sent,
            "errors/protocol": stats.protocol_errors,
            "errors/bugs": stats.bugs,
        }

    def _loads(self, now: float) -> dict[str, object]:
        """How much there was of something in a minute, on average."""
        stats = self._exchange.stats
        counts = {
            "messages/received": stats.messages_received,
            "messages/sent": stats.publish_sent + stats.other_sent,
            "publish/received": stats.messages_received - stats.other_received,
            "publish/sent": stats.publish_sent,
            "publish/dropped": stats.dropped,
            "bytes/received": stats.bytes_received,
            "bytes/sent": stats.bytes_sent,
            "sockets": stats.sockets,
            "connections": stats.connections,
        }
        values: dict[str, object] = {}
        elapsed = now - self._last
        if elapsed > 0:
            for name, count in counts.items():
                per_minute = (count - self._before.get(name, 0)) / elapsed * 60
                load = self._load.setdefault(name, [0.0] * len(_AVERAGES))
                for i, minutes in enumerate(_AVERAGES):
                    load[i] += (per_minute - load[i]) * (1 - math.exp(-elapsed / 60 / minutes))
                    values[f"load/{name}/{minutes}min"] = f"{load[i]:.2f}"
            self._last = now
            self._before = counts
        return values

    def publish(self, now: float) -> None:
        """Publish what has changed since the last time."""
        for name, value in {**self._values(now), **self._loads(now)}.items():
            text = str(value)
            if self._published.get(name) != text:
                self._published[name] = text
                self._exchange.publish(f"$SYS/broker/{name}".encode(), text.encode(), 0, True, None)
