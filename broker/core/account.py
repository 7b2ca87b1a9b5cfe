"""What has been done in this turn, and whose turn it is: nobody keeps the loop for long.

Owns: the unit of work, and what is somebody's share of a turn. Must not know: what work there is; whoever does it
charges it.

The unit stands for about a microsecond of a present-day processor in CPython 3.11, so that unlike things can be added:
a packet, a topic that is matched against a tree, a message that is handed to a thousand clients. It is counted and not
measured, as the core has no clock, and a test can say what happens.
"""

#: What one client may have done before others have their turn.
SHARE = 1_500
#: Above this, those who come later in the same turn get but a little: a crowd must not add up to a long turn.
TURN = 8_000
LEAST = 32
#: Packets decoded at a time: a flood is served in slices.
SLICE = 256

#: How many deliveries at QoS 0 a unit is: it is an append, and a part of a system call.
DELIVERIES = 8
#: Bytes that are copied in a unit.
COPIED = 1 << 13
#: Branches of a tree that are looked at in a unit.
BRANCHES = 4


class Account:
    """The work of a turn. `spent` may be added to by whoever works; deliveries are counted by the turn anyway, and
    come as `delivered`, in units."""

    __slots__ = ("share", "slice", "spent", "until")

    def __init__(self) -> None:
        self.spent = 0  #: units, in this turn
        self.until = SHARE  #: where the share ends of whom is served now
        self.share = SHARE  #: of each, in this turn
        self.slice = SLICE  #: packets that whoever is served may have decoded at a time: each is a unit at the least

    def share_out(self, clients: int) -> None:
        """So many want to be served in this turn."""
        self.share = max(LEAST, min(SHARE, TURN // max(1, clients)))

    def begin(self, delivered: int) -> None:
        """Another one is served."""
        done = self.spent + delivered
        if done < TURN:
            self.until = done + self.share
            self.slice = self.share if self.share < SLICE else SLICE
        else:
            self.until = done + LEAST
            self.slice = LEAST

    def end_of_turn(self) -> None:
        self.spent = 0
        self.until = SHARE
