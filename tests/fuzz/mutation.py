"""Changes to bytes without a guide, for where there is no atheris: the short run of the normal suite, and sockets.

Owns: the mutations. Must not know: what the bytes mean.
"""

from random import Random


def mutated(random: Random, seeds: list[bytes], longest: int = 600) -> bytes:
    """One of the seeds, or two of them in one, with some bytes changed, lost, added or repeated."""
    data = bytearray(random.choice(seeds))
    if random.random() < 0.5:
        other = random.choice(seeds)
        at = random.randint(0, len(data))
        data[at:] = other[random.randint(0, len(other)) :] if random.random() < 0.5 else other
    for _ in range(random.choice((0, 1, 1, 2, 3, 8))):
        _change(random, data)
    return bytes(data[:longest])


def _change(random: Random, data: bytearray) -> None:
    at = random.randint(0, len(data))
    end = min(len(data), at + random.choice((1, 1, 2, 4, 16)))
    how = random.randrange(5)
    if how == 0:
        data[at:end] = random.randbytes(end - at)
    elif how == 1:
        del data[at:end]
    elif how == 2:
        data[at:at] = random.randbytes(random.choice((1, 1, 2, 4)))
    elif how == 3:
        data[at:at] = data[at:end]
    elif at < len(data):
        data[at] ^= 1 << random.randrange(8)
