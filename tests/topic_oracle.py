"""Which topics a Topic Filter matches, from the prose of MQTT 3.1.1, section 4.7: for tests of whatever compares them.

Owns: an oracle that shares no code with the broker, over a universe of topics small enough to be searched.
"""

import re
from functools import cache
from itertools import product

from hypothesis import strategies as st

#: "z" stands for all the names that no filter spells.
NAMES = ("", "a", "$s", "z")
#: Every topic of up to four levels: the filters below have at most three, and one level more tells them all apart.
UNIVERSE = [t for depth in range(1, 5) for t in map("/".join, product(NAMES, repeat=depth)) if t]


@cache
def oracle(topic_filter: str) -> re.Pattern[str]:
    """The filter as a regular expression, from the prose of section 4.7."""
    if topic_filter == "#":
        pattern = ".*"
    else:
        parent, tail = (topic_filter[:-2], "(?:/.*)?") if topic_filter.endswith("/#") else (topic_filter, "")
        pattern = re.escape(parent).replace(r"\+", "[^/]*") + tail
    return re.compile(("(?!\\$)" if topic_filter[0] in "+#" else "") + pattern, re.DOTALL)


@cache
def matched(topic_filter: str) -> frozenset[str]:
    return frozenset(filter(oracle(topic_filter).fullmatch, UNIVERSE))


def filters(names: tuple[str, ...] = NAMES[:-1], depth: int = 3) -> st.SearchStrategy[str]:
    heads = st.lists(st.sampled_from((*names, "+", "+")), max_size=depth - 1)
    tails = st.sampled_from((*names, "+", "#", "#"))
    return st.builds(lambda head, tail: "/".join((*head, tail)), heads, tails).filter(bool)
