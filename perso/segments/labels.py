"""What a cluster is called: the few measures that set it apart, in words of the spec.

Decides which words, in which order and with which noun; the same centroids always get the same
labels, whatever their order, and no two of one fit share one.
"""

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perso.segments.cluster_config import ClusterSpec
from perso.segments.scaling import RobustScale

# C clusters, F features

_BUYERS: Final = "buyers"
_VISITORS: Final = "visitors"


def name_clusters(
    centroids_CF: NDArray[np.float64],
    scale: RobustScale,
    spec: ClusterSpec,
    *,
    keys: Sequence[str],
    taken: Collection[str] = (),
) -> tuple[str, ...]:
    """One label per cluster, each different from the others and from those taken.

    Args:
        centroids_CF: On the robust scale, where 1 is a usual customer's deviation.
        scale: Says what the columns are.
        spec: Words, threshold and the names that people gave; those win.
        keys: The clusters' keys.
        taken: Labels that are in use already.
    """
    labels: dict[int, str] = {}
    used = {*taken, *(spec.names[key] for key in keys if key in spec.names)}
    # By what they are, not by place, so that a tie falls the same way in any order.
    for place in np.lexsort(centroids_CF.T):
        if keys[place] in spec.names:
            labels[place] = spec.names[keys[place]]
            continue
        labels[place] = _unused(
            _words(centroids_CF[place], scale, spec), _noun(centroids_CF[place], scale), used, spec
        )
        used.add(labels[place])
    return tuple(labels[place] for place in range(len(keys)))


def likeness(one: str, other: str) -> float:
    """Share of the words of two labels that both have (Jaccard): 1 for the same words.

    Example:
        >>> likeness("Frequent evening buyers", "Evening frequent buyers"), likeness("a b", "b c d")
        (1.0, 0.25)
    """
    words, others = set(one.lower().split()), set(other.lower().split())
    return len(words & others) / len(words | others)


def _words(
    centroid_F: NDArray[np.float64], scale: RobustScale, spec: ClusterSpec
) -> list[tuple[float, str]]:
    """Deviation and word of every measure that has one for its side, the farthest first."""
    found = []
    for deviation, feature in zip(centroid_F, scale.features, strict=True):
        less, more = spec.words.get(feature, (None, None))
        word = more if deviation > 0 else less
        if word is not None:
            found.append((abs(float(deviation)), word))
    return sorted(found, key=lambda pair: (-pair[0], pair[1]))


def _noun(centroid_F: NDArray[np.float64], scale: RobustScale) -> str:
    """Buyers where the cluster's customers have orders, on average at least a half."""
    if "num_orders" not in scale.features:
        return "customers"
    orders_F = scale.restore(centroid_F[np.newaxis])[0]
    return _BUYERS if orders_F[scale.features.index("num_orders")] >= 0.5 else _VISITORS


def _unused(words: list[tuple[float, str]], noun: str, used: set[str], spec: ClusterSpec) -> str:
    telling = [word for deviation, word in words if deviation >= spec.label_threshold]
    first = _phrase(telling[: spec.max_words] or ["typical"], noun)
    if first not in used:
        return first
    # One word more, telling or not, sets it apart; then a number does.
    every = [word for _, word in words]
    for length in range(min(len(telling), spec.max_words) + 1, len(every) + 1):
        longer = _phrase(every[:length], noun)
        if longer not in used:
            return longer
    number = 2
    while f"{first} {number}" in used:
        number += 1
    return f"{first} {number}"


def _phrase(words: Sequence[str], noun: str) -> str:
    text = " ".join((*words, noun))
    return text[:1].upper() + text[1:]
