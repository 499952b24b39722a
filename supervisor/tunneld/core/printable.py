"""Other people's words, made fit for a terminal, a log line or a message: they must not move anybody's cursor."""

from __future__ import annotations

LONGEST_QUOTE = 200
"""Characters of other people's words that a message repeats; more is noise, or an attack on the reader's terminal."""


def one_line(text: str, longest: int | None = None) -> str:
    """`text` on one line: what cannot be printed counts as a space, and spaces in a row become one.

    Args:
        longest: characters of the answer at most; what is longer ends with an ellipsis.
    """
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if longest is None or len(line) <= longest else line[: longest - 1] + "…"


def escaped(text: str) -> str:
    """`text` with Python's escapes (`\\x1b`, `\\n`) in the place of what cannot be printed, so that nothing is lost."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
