"""What people call the segments: their order, a readable name, and one line of what it means.

The keys are the names of ``perso.segments.rfm``; a shop's own names are made readable by rule.
"""

from collections.abc import Iterable
from typing import Final

from perso.segments.migration import GONE, NEW, NO_LABEL

OTHER: Final = "other"
"""What a segment or cluster of too few customers is called outside."""
NOISE: Final = "noise"
"""The cluster of customers who are like nobody."""

_KNOWN: Final = {  # best customers first: every table and picture has this order
    "champions": ("Champions", "Bought just now, buy often and spend the most"),
    "loyal": ("Loyal", "Order often"),
    "potential_loyalists": ("Potential loyalists", "Bought lately and more than once"),
    "new": ("New customers", "First order just now"),
    "promising": ("Promising", "First order not long ago"),
    "need_attention": ("Need attention", "Ordered well, quiet for a while"),
    "about_to_sleep": ("About to sleep", "Few orders, quiet for a while"),
    "at_risk": ("At risk", "Spent well, no order for months"),
    "cant_lose_them": ("Can't lose them", "Top spenders, no order for months"),
    "hibernating": ("Hibernating", "Spent little, no order for months"),
    "lost": ("Lost", "No order for a very long time"),
    "browsers": ("Browsers", "Look around, have never bought"),
    OTHER: ("Other", "Groups of too few customers to name"),
    NOISE: ("Like nobody", "Customers who fit no group"),
    NO_LABEL: ("No group", "Not put into a group"),
    NEW: ("First seen", "Not there the week before"),
    GONE: ("Not seen any more", "There the week before"),
}


def display_name(key: str) -> str:
    """A name to read.

    Example:
        >>> display_name("cant_lose_them"), display_name("gift_buyers")
        ("Can't lose them", 'Gift buyers')
    """
    if key in _KNOWN:
        return _KNOWN[key][0]
    words = key.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def meaning(key: str) -> str:
    """What customers of a segment have in common; empty for a shop's own segment."""
    return _KNOWN[key][1] if key in _KNOWN else ""


def in_order(keys: Iterable[str]) -> list[str]:
    """Distinct keys, best customers first; a shop's own segments before ``browsers``, by name.

    Example:
        >>> in_order(["other", "gift_buyers", "lost", "champions"])
        ['champions', 'lost', 'gift_buyers', 'other']
    """
    order = {key: place for place, key in enumerate(_KNOWN)}
    own = order["browsers"] - 0.5
    return sorted(set(keys), key=lambda key: (order.get(key, own), key))
