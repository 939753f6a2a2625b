"""Colours of segments and clusters.

They can be told apart with any colour vision and carry meaning: blue for customers who are here,
orange for those who are slipping away, grey for those who are gone.
"""

from collections.abc import Sequence
from typing import Final

from perso.pages.drawing import CATEGORY_COLORS
from perso.segments.names import NOISE, OTHER

_BY_SEGMENT: Final = {
    "champions": "#08306b",
    "loyal": "#08519c",
    "potential_loyalists": "#2f7ebc",
    "new": "#6baed6",
    "promising": "#a8d0e6",
    "need_attention": "#fdd49e",
    "about_to_sleep": "#fdae6b",
    "at_risk": "#e6762b",
    "cant_lose_them": "#a63603",
    "hibernating": "#a3a9b0",
    "lost": "#6c737a",
    "browsers": "#d5d9de",
    OTHER: "#eceff2",
}
_OF_THE_SHOP: Final = ("#1b7837", "#762a83", "#5aae61", "#9970ab", "#a6dba0", "#c2a5cf")


def segment_colors(keys: Sequence[str]) -> dict[str, str]:
    """A colour per segment; a shop's own segments take greens and purples in turn."""
    own = [key for key in sorted(keys) if key not in _BY_SEGMENT]
    colors = {key: _OF_THE_SHOP[place % len(_OF_THE_SHOP)] for place, key in enumerate(own)}
    return {key: _BY_SEGMENT.get(key) or colors[key] for key in keys}


def cluster_colors(labels: Sequence[str]) -> dict[str, str]:
    """A colour per cluster, in the order given; grey for noise."""
    named = [label for label in labels if label != NOISE]
    colors = {
        label: CATEGORY_COLORS[place % len(CATEGORY_COLORS)] for place, label in enumerate(named)
    }
    return colors | {NOISE: "#c3c9cf"}
