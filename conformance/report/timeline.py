"""A test's timeline as lines of text: what went over the wire, when, and what it means."""

from collections.abc import Sequence

from ..transcript import Event

#: How many bytes of an event a line shows.
SHOWN_BYTES = 24


def lines(events: Sequence[Event]) -> list[str]:
    """One line per event: seconds, client, direction, meaning, bytes."""
    width = max((len(event.who) for event in events), default=0)
    return [line(event, width) for event in events]


def line(event: Event, width: int = 0) -> str:
    """`   0.012  first   -> PINGREQ   c0 00`"""
    return f"{event.at:8.3f}  {event.who:<{width}}  {event.direction} {event.text}{bytes_shown(event)}"


def bytes_shown(event: Event) -> str:
    """The bytes as ` | c0 00`, cut where they are many; empty if the event has none."""
    if not event.data:
        return ""
    shown = event.data.split(" ")[:SHOWN_BYTES]
    rest = f" ... ({event.size} bytes)" if event.size > len(shown) else ""
    return f"  | {' '.join(shown)}{rest}"
