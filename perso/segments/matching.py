"""Clusters of a new fit recognised as those of the fit before, so that names survive.

Decides that a name moves along as long as the cluster is near, and that a cluster whose own
centroid would now be called otherwise keeps its name and raises an alert: a silent rename would
change what every consumer of the label relies on.

References:
    Kuhn, The Hungarian Method for the Assignment Problem, 1955.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from perso.segments.cluster_config import ClusterSpec
from perso.segments.cluster_model import ClusterModel
from perso.segments.labels import likeness, name_clusters


@dataclass(frozen=True, kw_only=True)
class MeaningChange:
    """A cluster that kept its name though its customers would now get another one."""

    key: str
    kept_label: str
    label_now: str
    distance: float
    """How far the centroid moved, in usual deviations per root of the number of features."""


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """A new fit under the names of the one before."""

    model: ClusterModel
    """Keys and labels of matched clusters are those before; others have new ones."""
    new: tuple[str, ...]
    """Keys of clusters that were not there before."""
    retired: tuple[str, ...]
    """Keys of clusters that are no longer there; they are not used again."""
    changed: tuple[MeaningChange, ...]
    """Matched clusters that mean something else now."""


def continue_clusters(
    fitted: ClusterModel, previous: ClusterModel, spec: ClusterSpec
) -> Continuation:
    """Match clusters one to one by least total distance, and carry names over.

    Args:
        fitted: A new fit, with names of its own.
        previous: The fit before, whose names go on.
        spec: The largest distance of a match, words and given names.
    """
    from scipy.optimize import linear_sum_assignment

    restored_PF = previous.scale.restore(previous.centroids_CF)
    before_PF = fitted.scale.transform(
        pa.table(dict(zip(previous.features, restored_PF.T, strict=True)))
    )
    size = np.sqrt(len(fitted.features))
    distances_CP = np.linalg.norm(fitted.centroids_CF[:, np.newaxis] - before_PF, axis=2) / size
    # No match costs the same however far: a cluster that is gone must not pull others apart.
    costs_CP = np.minimum(distances_CP, spec.max_match_distance)
    matches = {
        int(new): int(old)
        for new, old in zip(*linear_sum_assignment(costs_CP), strict=True)
        if distances_CP[new, old] <= spec.max_match_distance
    }
    next_key = previous.next_key
    keys, labels = [], {}
    for place in range(len(fitted.keys)):
        if place in matches:
            keys.append(previous.keys[matches[place]])
            label = previous.labels[matches[place]]
            # A name that people gave to another cluster since is that one's.
            if keys[-1] in spec.names or label not in spec.names.values():
                labels[place] = spec.names.get(keys[-1], label)
        else:
            keys.append(f"c{next_key:02d}")
            next_key += 1
    unnamed = [place for place in range(len(keys)) if place not in labels]
    if unnamed:
        named = name_clusters(
            fitted.centroids_CF[unnamed],
            fitted.scale,
            spec,
            keys=[keys[place] for place in unnamed],
            taken=set(labels.values()),
        )
        labels |= dict(zip(unnamed, named, strict=True))
    changed, meanings = [], list(fitted.meanings)
    for new, old in sorted(matches.items()):
        meant = previous.meanings[old]
        if likeness(fitted.meanings[new], meant) >= spec.min_likeness:
            meanings[new] = meant
            continue
        # Told once: from now on the cluster is held against what it means now.
        changed.append(
            MeaningChange(
                key=keys[new],
                kept_label=labels[new],
                label_now=fitted.meanings[new],
                distance=float(distances_CP[new, old]),
            )
        )
    return Continuation(
        model=replace(
            fitted,
            keys=tuple(keys),
            labels=tuple(labels[place] for place in range(len(keys))),
            meanings=tuple(meanings),
            next_key=next_key,
        ),
        new=tuple(key for place, key in enumerate(keys) if place not in matches),
        retired=tuple(
            key for place, key in enumerate(previous.keys) if place not in matches.values()
        ),
        changed=tuple(changed),
    )
