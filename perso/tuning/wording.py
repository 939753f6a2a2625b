"""A point's settings as people read them."""

from collections.abc import Mapping
from typing import Any


def in_words(settings: Mapping[str, Any]) -> str:
    """The settings of a point as one line: ``sgd num_factors=32 l2=0.1``.

    Example:
        >>> in_words({"family": "sgd", "num_factors": 32, "l2": 0.12345678})
        'sgd num_factors=32 l2=0.12346'
    """
    words = []
    for name, value in settings.items():
        shown = f"{value:.5g}" if isinstance(value, float) else str(value)
        words.append(shown if name == "family" else f"{name}={shown}")
    return " ".join(words)
