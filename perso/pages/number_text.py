"""Numbers as a page writes them: separators, few digits, a dash for what is not known."""

from typing import Final

HIDDEN: Final = "hidden"
"""Stands for a number that must not be told."""


def count(value: int | None) -> str:
    """Customers, or that they are hidden.

    Example:
        >>> count(12345), count(None)
        ('12,345', 'hidden')
    """
    return HIDDEN if value is None else f"{value:,}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share of 0 to 1 as per cent; a dash for None."""
    return "–" if value is None else f"{value:.{digits}%}"


def number(value: float | None, digits: int = 1) -> str:
    """A number with separators; a dash for None."""
    return "–" if value is None else f"{round(value, digits) + 0.0:,.{digits}f}"  # never -0


def money(value: float | None) -> str:
    """An amount: no cents from 1,000 on; a dash for None.

    Example:
        >>> money(1234567.8), money(12.5)
        ('1,234,568', '12.50')
    """
    return number(value, 0 if value is not None and abs(value) >= 1_000 else 2)


def rounded_money(value: float) -> str:
    """An amount in few digits.

    Example:
        >>> rounded_money(1211017.3), rounded_money(950.5)
        ('1.21 million', '950.50')
    """
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if abs(value) >= size:
            return f"{value / size:.2f} {word}"
    return money(value)


def counted(value: int, one: str, many: str = "") -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "alert"), counted(1200, "customer")
        ('1 alert', '1,200 customers')
    """
    return f"{value:,} {one if value == 1 else many or one + 's'}"
