"""Numbers in few columns: decimal, and beyond that hybrid-36 (A000, …), as large PDB files have them."""

__all__ = ["read_hybrid36", "write_hybrid36"]

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def read_hybrid36(field: bytes) -> int | None:
    """The number in a field as wide as its column; None if it is none."""
    text = field.decode("latin-1")
    try:
        return int(text)
    except ValueError:
        pass
    width = len(text)
    if not text.isascii() or not text.isalnum() or not (text.isupper() or text.islower()):
        return None
    if not text[0].isalpha():
        return None
    start = 10 * 36 ** (width - 1)
    value = int(text, 36) - start + 10**width
    found: int | None = value + (26 * 36 ** (width - 1) if text.islower() else 0)
    return found


def write_hybrid36(number: int, width: int) -> str | None:
    """``number`` in ``width`` columns, right-aligned; None if it does not fit."""
    if -(10 ** (width - 1)) < number < 10**width:
        return f"{number:{width}d}"
    span = 26 * 36 ** (width - 1)
    rest = number - 10**width
    if not 0 <= rest < 2 * span:
        return None
    upper, rest = divmod(rest, span)
    rest += 10 * 36 ** (width - 1)
    text = ""
    while rest:
        rest, digit = divmod(rest, 36)
        text = DIGITS[digit] + text
    return text.lower() if upper else text
