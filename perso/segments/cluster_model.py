"""Fitted clusters: how any customer is assigned to one, and the artifact as data.

Assignment is per row, in numpy alone, so parts can be assigned anywhere without scikit-learn and
give what the whole gives: 10 million customers take about a minute a core. The artifact is JSON
and arrays with a checksum; nothing is unpickled.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perso.errors import ArtifactError
from perso.segments.scaling import RobustScale

# N customers, F features, D principal components, C clusters, K core points

FORMAT_VERSION: Final = 1
_MANIFEST_FILE: Final = "manifest.json"
_ARRAYS_FILE: Final = "arrays.npz"
NOISE_LABEL: Final = "Unlike any group"
_SCALE_ARRAYS: Final = ("is_log_F", "low_F", "high_F", "center_F", "spread_F")
_ARRAYS: Final = {
    "kmeans": {"centers_CD"},
    "gaussian_mixture": {"weights_C", "means_CD", "precisions_CDD"},
    "hdbscan": {"cores_KD", "codes_K", "radius_K"},
}
_CACHED: Final = 1_000
"""Rows of a product at a time, so that their sums stay in the cache."""
_BLOCK: Final = 20_000
"""Customers assigned at a time, so that memory stays below 50 MB with eight clusters."""
_ROUNDING: Final = 1e-9
"""Slack of a reach: it ends at a customer of the fit, who must not be in or out by rounding."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Where customers belong."""

    codes_N: NDArray[np.int32]
    """Place of the cluster in ``ClusterModel.keys``; -1: noise."""
    memberships_NC: NDArray[np.float32]
    """How certain each cluster is; rows add up to 1, those of noise to 0."""
    distances_N: NDArray[np.float32]
    """From the own centroid (noise: from the nearest one), on the robust scale."""


@dataclass(frozen=True, kw_only=True)
class ClusterModel:
    """One fit, with the names of its clusters."""

    algorithm: Literal["kmeans", "gaussian_mixture", "hdbscan"]
    scale: RobustScale
    mean_F: NDArray[np.float64]
    """Center of the principal components."""
    components_DF: NDArray[np.float64]
    centroids_CF: NDArray[np.float64]
    """Mean of each cluster's customers in the fit, on the robust scale."""
    keys: tuple[str, ...]
    """Stable ids, such as ``c01``."""
    labels: tuple[str, ...]
    """What people call the clusters."""
    meanings: tuple[str, ...]
    """What the centroids alone would have the clusters called when they were named, or when a
    change of meaning was last told."""
    next_key: int
    """Number of the next new key; a key is never used again."""
    arrays: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """What the algorithm assigns by: ``centers_CD``, or ``weights_C``, ``means_CD`` and
    ``precisions_CDD`` (Cholesky factors), or ``cores_KD``, ``codes_K`` and ``radius_K``."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """How good the fit is: silhouette, stability, coverage, and bic where there is one."""
    candidates: tuple[Mapping[str, Any], ...] = ()
    """Every clustering that was tried when this one was selected, with its scores."""
    left_out: tuple[str, ...] = ()
    """Features of the spec that said nothing in the sample: unknown for all, or the same."""

    @property
    def features(self) -> tuple[str, ...]:
        """The measures that are read."""
        return self.scale.features

    @property
    def noise_label(self) -> str:
        """What customers of no cluster are called."""
        return NOISE_LABEL

    @cached_property
    def fit_id(self) -> str:
        """The fit in 16 characters: equal where every number is."""
        digest = hashlib.blake2b(digest_size=8)
        for name, array in sorted(self._all_arrays().items()):
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        digest.update("".join((*self.features, *self.keys)).encode())
        return digest.hexdigest()

    def components(self, measures: pa.Table) -> NDArray[np.float64]:
        """Customers on the principal components, shape (N, D)."""
        return _product(self.scale.transform(measures) - self.mean_F, self.components_DF.T)

    def reordered(self, order: NDArray[np.int64]) -> "ClusterModel":
        """The same clusters in another order; keys, labels and meanings stay in place."""
        arrays = dict(self.arrays)
        if "codes_K" in arrays:
            place_of = np.argsort(order)
            arrays["codes_K"] = place_of[arrays["codes_K"].astype(np.int64)].astype(np.float64)
        for name in ("centers_CD", "weights_C", "means_CD", "precisions_CDD"):
            if name in arrays:
                arrays[name] = arrays[name][order]
        return replace(self, arrays=arrays, centroids_CF=self.centroids_CF[order])

    def assign_points(self, points_ND: NDArray[np.float64]) -> NDArray[np.int64]:
        """The cluster of points on the principal components, -1: noise, shape (N,)."""
        memberships_NC = self._memberships(points_ND)
        return np.where(memberships_NC.any(axis=1), memberships_NC.argmax(axis=1), -1)

    def _memberships(self, points_ND: NDArray[np.float64]) -> NDArray[np.float64]:
        by = {
            "kmeans": self._by_centers,
            "gaussian_mixture": self._by_densities,
            "hdbscan": self._by_cores,
        }
        return by[self.algorithm](points_ND)

    def project(self, measures: pa.Table) -> NDArray[np.float64]:
        """The first two components, for a picture, shape (N, 2)."""
        projected_ND = self.components(measures)[:, :2]
        return np.pad(projected_ND, ((0, 0), (0, 2 - projected_ND.shape[1])))

    def assign(self, measures: pa.Table) -> Assignment:
        """Where each customer belongs; a row's result depends on that row alone.

        Args:
            measures: Rows with the features; one that is missing counts as unknown.
        """
        blocks = [
            self._assign(measures.slice(start, _BLOCK))
            for start in range(0, max(len(measures), 1), _BLOCK)
        ]
        return Assignment(
            codes_N=np.concatenate([block.codes_N for block in blocks]),
            memberships_NC=np.concatenate([block.memberships_NC for block in blocks]),
            distances_N=np.concatenate([block.distances_N for block in blocks]),
        )

    def _assign(self, measures: pa.Table) -> Assignment:
        scaled_NF = self.scale.transform(measures)
        points_ND = _product(scaled_NF - self.mean_F, self.components_DF.T)
        memberships_NC = self._memberships(points_ND)
        codes_N = memberships_NC.argmax(axis=1)
        is_noise_N = ~memberships_NC.any(axis=1)
        distances_NC = np.linalg.norm(scaled_NF[:, np.newaxis] - self.centroids_CF, axis=2)
        own_N = np.take_along_axis(distances_NC, codes_N[:, np.newaxis], axis=1)[:, 0]
        return Assignment(
            codes_N=np.where(is_noise_N, -1, codes_N).astype(np.int32),
            memberships_NC=memberships_NC.astype(np.float32),
            distances_N=np.where(is_noise_N, distances_NC.min(axis=1), own_N).astype(np.float32),
        )

    def _by_centers(self, points_ND: NDArray[np.float64]) -> NDArray[np.float64]:
        """All of a customer belongs to the nearest center: K-Means knows no degrees."""
        nearest_N = _squared_distances(points_ND, self.arrays["centers_CD"]).argmin(axis=1)
        memberships_NC: NDArray[np.float64] = np.eye(len(self.keys))[nearest_N]
        return memberships_NC

    def _by_densities(self, points_ND: NDArray[np.float64]) -> NDArray[np.float64]:
        """Posterior probabilities of the components."""
        log_NC = np.empty((len(points_ND), len(self.keys)))
        for c, (mean_D, factor_DD) in enumerate(
            zip(self.arrays["means_CD"], self.arrays["precisions_CDD"], strict=True)
        ):
            whitened_ND = _product(points_ND - mean_D, factor_DD)
            log_NC[:, c] = np.log(np.diag(factor_DD)).sum() - 0.5 * (whitened_ND**2).sum(axis=1)
        log_NC += np.log(self.arrays["weights_C"])
        odds_NC = np.exp(log_NC - log_NC.max(axis=1, keepdims=True))
        shares_NC: NDArray[np.float64] = odds_NC / odds_NC.sum(axis=1, keepdims=True)
        return shares_NC

    def _by_cores(self, points_ND: NDArray[np.float64]) -> NDArray[np.float64]:
        """All to the cluster of the nearest point of the fit, where that is within its reach."""
        from scipy.spatial import cKDTree

        distance_N, nearest_N = cKDTree(self.arrays["cores_KD"]).query(points_ND)
        codes_N = self.arrays["codes_K"][nearest_N].astype(np.int64)
        is_near_N = distance_N <= self.arrays["radius_K"][nearest_N] + _ROUNDING
        memberships_NC = np.zeros((len(points_ND), len(self.keys)))
        rows = np.flatnonzero(is_near_N)
        memberships_NC[rows, codes_N[rows]] = 1.0
        return memberships_NC

    def describe(self) -> dict[str, Any]:
        """What a report tells: algorithm, scores, candidates, what sets each cluster apart."""
        restored_CF = self.scale.restore(self.centroids_CF)
        apart = {}
        for key, scaled_F, value_F in zip(self.keys, self.centroids_CF, restored_CF, strict=True):
            most = np.argsort(-np.abs(scaled_F), kind="stable")[:4]
            apart[key] = ", ".join(
                f"{self.features[f].replace('_', ' ')} {_rounded(value_F[f])} ({scaled_F[f]:+.1f})"
                for f in most
            )
        return {
            "algorithm": self.algorithm.replace("_", " "),
            "number of clusters": len(self.keys),
            "principal components": len(self.components_DF),
            **({"left out": ", ".join(self.left_out).replace("_", " ")} if self.left_out else {}),
            **{name: round(value, 3) for name, value in self.scores.items()},
            "clusters": apart,
            "candidates": [dict(candidate) for candidate in self.candidates],
        }

    def save(self, folder: Path) -> None:
        """Write ``manifest.json`` and ``arrays.npz`` into a new folder."""
        folder.mkdir(parents=True)
        np.savez(folder / _ARRAYS_FILE, allow_pickle=False, **self._all_arrays())
        manifest = {
            "format_version": FORMAT_VERSION,
            "algorithm": self.algorithm,
            "features": self.features,
            "keys": self.keys,
            "labels": self.labels,
            "meanings": self.meanings,
            "next_key": self.next_key,
            "scores": dict(self.scores),
            "candidates": [dict(candidate) for candidate in self.candidates],
            "left_out": self.left_out,
            "fit_id": self.fit_id,
            "arrays_digest": _digest((folder / _ARRAYS_FILE).read_bytes()),
        }
        manifest["checksum"] = _checksum(manifest)
        (folder / _MANIFEST_FILE).write_text(json.dumps(manifest, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "ClusterModel":
        """The model in a folder that :meth:`save` wrote.

        Raises:
            ArtifactError: If it is damaged, foreign or of another version.
        """
        try:
            manifest = json.loads((folder / _MANIFEST_FILE).read_text())
            if manifest["format_version"] != FORMAT_VERSION:
                raise ArtifactError(
                    f"clusters in {folder} have format version {manifest['format_version']}, "
                    f"this perso reads {FORMAT_VERSION}; run `perso segments run` again"
                )
            is_intact = manifest.pop("checksum") == _checksum(manifest)
            content = (folder / _ARRAYS_FILE).read_bytes()
            if _digest(content) != manifest["arrays_digest"]:
                raise ValueError("the checksum of its arrays differs")
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            scale = RobustScale(
                features=tuple(manifest["features"]),
                **{name: arrays.pop(name) for name in _SCALE_ARRAYS},
            )
            model = cls(
                algorithm=manifest["algorithm"],
                scale=scale,
                mean_F=arrays.pop("mean_F"),
                components_DF=arrays.pop("components_DF"),
                centroids_CF=arrays.pop("centroids_CF"),
                keys=tuple(manifest["keys"]),
                labels=tuple(manifest["labels"]),
                meanings=tuple(manifest["meanings"]),
                next_key=int(manifest["next_key"]),
                arrays=arrays,
                scores=manifest["scores"],
                candidates=tuple(manifest["candidates"]),
                left_out=tuple(manifest["left_out"]),
            )
            if set(arrays) != _ARRAYS[model.algorithm]:
                raise ValueError(f"{sorted(arrays)} are no arrays of {model.algorithm}")
            if not len(model.keys) == len(model.labels) == len(model.meanings):
                raise ValueError("its clusters have not one label each")
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise ArtifactError(
                f"clusters in {folder} cannot be read ({error}); run `perso segments run` again"
            ) from error
        if model.fit_id != manifest.get("fit_id") or not is_intact:
            raise ArtifactError(
                f"clusters in {folder} are damaged: their checksum differs; "
                "run `perso segments run` again"
            )
        return model

    def _all_arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "mean_F": self.mean_F,
            "components_DF": self.components_DF,
            "centroids_CF": self.centroids_CF,
            **{name: getattr(self.scale, name) for name in _SCALE_ARRAYS},
            **self.arrays,
        }


def _checksum(manifest: Mapping[str, Any]) -> str:
    return _digest(json.dumps(manifest, sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _product(rows_NF: NDArray[np.float64], matrix_FD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Term by term: BLAS rounds a row of one block unlike the same row of another."""
    product_ND = np.empty((len(rows_NF), matrix_FD.shape[1]))
    for start in range(0, len(rows_NF), _CACHED):
        rows_nF = rows_NF[start : start + _CACHED]
        sums_nD = product_ND[start : start + _CACHED]
        sums_nD[:] = 0.0
        term_nD = np.empty_like(sums_nD)
        for column_n, row_D in zip(rows_nF.T, matrix_FD, strict=True):
            np.multiply(column_n[:, np.newaxis], row_D, out=term_nD)
            sums_nD += term_nD
    return product_ND


def _squared_distances(
    points_ND: NDArray[np.float64], centers_CD: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Directly, not by expanding the square: a row's result must not depend on its block."""
    distances_NC: NDArray[np.float64] = ((points_ND[:, np.newaxis] - centers_CD) ** 2).sum(axis=2)
    return distances_NC


def _rounded(value: float) -> str:
    """Three digits; a logarithm undone leaves a trace of rounding where there is nothing."""
    return "0" if abs(value) < 1e-6 else f"{value:.3g}"
