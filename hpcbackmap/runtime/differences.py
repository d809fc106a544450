"""What differs between two records, in words."""

from collections.abc import Collection
from typing import Any

__all__ = ["first_difference"]

SHOWN = 40
"""Letters of a value in a message."""


def first_difference(
    before: Any, now: Any, ignore: Collection[str] = (), key: str = ""
) -> str | None:
    """``key was a, is b`` for the first leaf that differs between two JSON values."""
    if key in ignore:
        return None
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            inner = f"{key}.{name}" if key else name
            change = first_difference(before.get(name), now.get(name), ignore, inner)
            if change:
                return change
        return None
    return None if before == now else f"{key} was {_short(before)}, is {_short(now)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else text[: SHOWN // 3] + "…"
