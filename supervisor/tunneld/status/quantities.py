"""Numbers in words: how long something lasted, and how many of something there are."""

from __future__ import annotations

# From the largest to the smallest, each with its seconds.
UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def duration(seconds: float, *, units: int = 2) -> str:
    """Seconds in words, rounded down to the largest `units`: `4 s`, `3 min 20 s`, `9 d 3 h`."""
    rest, parts = round(seconds), []
    for unit, size in UNITS:
        number, rest = divmod(rest, size)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:units]) or "0 s"


def counted(number: int, what: str) -> str:
    """`1 session`, `2 sessions`: a number of things, whose plural ends in s."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
