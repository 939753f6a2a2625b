"""Which clustering a sample of customers is given, and how the next sample keeps to it.

Decides by two figures: the silhouette (are customers closer to their own cluster than to the next
one?) times the share of customers that are in any, and stability (do refits on resamples put the
same customers together?). Among those whose stability is trusted the best silhouette wins. For
Gaussian mixtures the number of components is chosen by BIC first. Everything is fitted on a
sample, so the cost does not grow with the shop: about half a minute a selection.

References:
    Rousseeuw, Silhouettes, 1987. Schwarz, Estimating the Dimension of a Model (BIC), 1978. Hubert
    and Arabie, Comparing Partitions (adjusted Rand index), 1985. Ben-Hur et al., A Stability
    Based Method for Discovering Structure in Clustered Data, 2002. Campello et al., HDBSCAN, 2013.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perso.segments.cluster_config import Algorithm, ClusterSpec
from perso.segments.cluster_model import ClusterModel
from perso.segments.labels import name_clusters
from perso.segments.scaling import RobustScale

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# N customers of the sample, F features, D principal components, C clusters

_NO_SCORE = -1.0
"""Silhouette of a clustering with fewer than two clusters."""


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """One clustering to try: K clusters, or the smallest cluster of HDBSCAN."""

    algorithm: Algorithm
    size: int
    share: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    setting: _Setting
    arrays: Mapping[str, NDArray[np.float64]]
    num_clusters: int
    bic: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


def _one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """The function with BLAS and OpenMP held to one thread.

    A sample is small: threads bring little, and where other work fills the machine they wait for
    each other, eight times as long on two busy cores.
    """

    @wraps(function)
    def held(*args: P.args, **options: P.kwargs) -> R:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        with threadpool_limits(limits=1):
            return function(*args, **options)

    return held


@_one_thread
def fit_clusters(
    sample: pa.Table, spec: ClusterSpec, *, seed: int, previous: ClusterModel | None = None
) -> ClusterModel | None:
    """The best clustering of a sample; None for fewer than ``min_customers``.

    Clusters in use are refitted and stand unless a new selection is clearly better: every change
    of them costs those who rely on their names. Deterministic for a sample, whatever the order of
    its rows, and a seed.

    Args:
        sample: Customers with the spec's features; more than ``sample_size`` are thinned.
        spec: What to try and how to choose.
        seed: Of starts, resamples and thinning.
        previous: The clusters in use, if any.

    Raises:
        ValueError: If a feature is no number or none tells customers apart.
    """
    if len(sample) < spec.min_customers:
        return None
    space = _Space.of(sample, spec, seed)
    candidates = [_measure(fitted, space, spec, seed) for fitted in _tried(space, spec, seed)]
    chosen = _choose(candidates, spec)
    standing = None
    if previous is not None:
        standing = refit_clusters(sample, spec, previous=previous, seed=seed)
    if chosen is None or (standing is not None and _stands(standing, chosen, spec)):
        return standing
    logger.info(
        "clusters: %s with %d clusters of %d tried, silhouette %.2f, stability %.2f",
        chosen.setting.algorithm,
        chosen.num_clusters,
        len(candidates),
        chosen.figures["silhouette"],
        chosen.figures["stability"],
    )
    told = tuple(
        {
            "algorithm": one.setting.algorithm,
            "clusters": one.num_clusters,
            **{name: round(value, 4) for name, value in one.figures.items()},
            "chosen": one is chosen,
        }
        for one in candidates
    )
    return _to_model(chosen, space, spec, candidates=told)


@_one_thread
def refit_clusters(
    sample: pa.Table, spec: ClusterSpec, *, previous: ClusterModel, seed: int
) -> ClusterModel | None:
    """The same algorithm and number of clusters on a newer sample, from the clusters before.

    Density clusters are kept as they are: they have no centroids to start from, and another sample
    may well fall into another number of them.

    Scale and components stay those of the selection: a week's noise in them would turn the space
    that clusters are compared in.

    Returns:
        None for fewer than ``min_customers``; names are those of a new fit, see
        :func:`perso.segments.matching.continue_clusters`.

    Raises:
        ValueError: As :func:`fit_clusters`.
    """
    if len(sample) < spec.min_customers:
        return None
    space = _Space.under(previous, sample, spec, seed)
    share = next((c.get("share", 0.0) for c in previous.candidates if c.get("chosen")), 0.0)
    setting = _Setting(algorithm=previous.algorithm, size=len(previous.keys), share=share)
    if setting.algorithm == "hdbscan":
        kept = _Fitted(setting=setting, arrays=previous.arrays, num_clusters=setting.size)
        return replace(previous, scores=dict(_measure(kept, space, spec, seed).figures))
    fitted = _fit(setting, space.points_ND, seed, spec=spec, starts=previous.arrays)
    assert fitted is not None  # only HDBSCAN may find nothing
    measured = _measure(fitted, space, spec, seed)
    return _to_model(measured, space, spec, candidates=previous.candidates)


@dataclass(frozen=True, kw_only=True)
class _Space:
    """The sample on its principal components."""

    scale: RobustScale
    scaled_NF: NDArray[np.float64]
    mean_F: NDArray[np.float64]
    components_DF: NDArray[np.float64]
    points_ND: NDArray[np.float64]

    @classmethod
    def of(cls, sample: pa.Table, spec: ClusterSpec, seed: int) -> "_Space":
        from sklearn.decomposition import PCA

        scale = RobustScale.fit(sample, spec)
        scaled_NF = _thinned(scale.transform(sample), spec, seed)
        pca = PCA(svd_solver="full").fit(scaled_NF)
        explained = np.cumsum(pca.explained_variance_ratio_)
        num_kept = int(np.searchsorted(explained, spec.explained_variance - 1e-12) + 1)
        components_DF = pca.components_[:num_kept]
        # The sign of a component is the solver's whim; its largest entry is made positive.
        largest = np.abs(components_DF).argmax(axis=1)
        signs = np.sign(components_DF[np.arange(len(components_DF)), largest])
        components_DF = components_DF * signs[:, np.newaxis]
        return cls(
            scale=scale,
            scaled_NF=scaled_NF,
            mean_F=pca.mean_,
            components_DF=components_DF,
            points_ND=(scaled_NF - pca.mean_) @ components_DF.T,
        )

    @classmethod
    def under(cls, model: ClusterModel, sample: pa.Table, spec: ClusterSpec, seed: int) -> "_Space":
        """The sample on the scale and the components of a model."""
        scaled_NF = _thinned(model.scale.transform(sample), spec, seed)
        return cls(
            scale=model.scale,
            scaled_NF=scaled_NF,
            mean_F=model.mean_F,
            components_DF=model.components_DF,
            points_ND=(scaled_NF - model.mean_F) @ model.components_DF.T,
        )


def _thinned(scaled_NF: NDArray[np.float64], spec: ClusterSpec, seed: int) -> NDArray[np.float64]:
    """At most ``sample_size`` rows, sorted by value so that their order carries no meaning."""
    ordered_NF = scaled_NF[np.lexsort(scaled_NF.T)]
    if len(ordered_NF) <= spec.sample_size:
        return ordered_NF
    drawn = np.random.default_rng(seed).permutation(len(ordered_NF))[: spec.sample_size]
    return ordered_NF[np.sort(drawn)]


def _tried(space: _Space, spec: ClusterSpec, seed: int) -> Iterator[_Fitted]:
    fewest, most = spec.num_clusters
    sizes = range(fewest, min(most, len(space.points_ND) - 1) + 1)
    for algorithm in spec.algorithms:
        if algorithm == "hdbscan":
            settings = [
                _Setting(algorithm=algorithm, size=0, share=share)
                for share in spec.min_cluster_shares
            ]
        else:
            settings = [_Setting(algorithm=algorithm, size=size) for size in sizes]
        found = [_fit(setting, space.points_ND, seed, spec=spec) for setting in settings]
        fits = [one for one in found if one is not None]
        if algorithm == "gaussian_mixture" and fits:
            # Its likelihood says how many components the data carry.
            fits = [min(fits, key=lambda one: one.bic if one.bic is not None else np.inf)]
        yield from fits


def _fit(
    setting: _Setting,
    points_ND: NDArray[np.float64],
    seed: int,
    *,
    spec: ClusterSpec,
    starts: Mapping[str, NDArray[np.float64]] | None = None,
) -> _Fitted | None:
    """None where HDBSCAN finds fewer than two clusters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn tells of slow convergence
        if setting.algorithm == "kmeans":
            return _fit_kmeans(setting, points_ND, seed, starts)
        if setting.algorithm == "gaussian_mixture":
            return _fit_mixture(setting, points_ND, seed, starts)
        return _fit_hdbscan(setting, points_ND, seed, spec)


def _fit_kmeans(
    setting: _Setting,
    points_ND: NDArray[np.float64],
    seed: int,
    starts: Mapping[str, NDArray[np.float64]] | None,
) -> _Fitted:
    from sklearn.cluster import MiniBatchKMeans

    fitted = MiniBatchKMeans(
        n_clusters=setting.size,
        init="k-means++" if starts is None else starts["centers_CD"],
        n_init=5 if starts is None else 1,
        batch_size=4096,
        random_state=seed,
    ).fit(points_ND)
    return _Fitted(
        setting=setting,
        arrays={"centers_CD": np.asarray(fitted.cluster_centers_, np.float64)},
        num_clusters=setting.size,
    )


def _fit_mixture(
    setting: _Setting,
    points_ND: NDArray[np.float64],
    seed: int,
    starts: Mapping[str, NDArray[np.float64]] | None,
) -> _Fitted:
    from sklearn.mixture import GaussianMixture

    before = {}
    if starts is not None:
        factors_CDD = starts["precisions_CDD"]
        before = {
            "weights_init": starts["weights_C"],
            "means_init": starts["means_CD"],
            "precisions_init": factors_CDD @ factors_CDD.transpose(0, 2, 1),
        }
    fitted = GaussianMixture(
        n_components=setting.size,
        covariance_type="full",
        **before,
        n_init=3 if starts is None else 1,
        reg_covar=1e-3,  # a share that is 0 for most would have a density without bound
        random_state=seed,
    ).fit(points_ND)
    return _Fitted(
        setting=setting,
        arrays={
            "weights_C": fitted.weights_,
            "means_CD": fitted.means_,
            "precisions_CDD": fitted.precisions_cholesky_,
        },
        num_clusters=setting.size,
        bic=float(fitted.bic(points_ND)),
    )


def _fit_hdbscan(
    setting: _Setting, points_ND: NDArray[np.float64], seed: int, spec: ClusterSpec
) -> _Fitted | None:
    from scipy.spatial import cKDTree
    from sklearn.cluster import HDBSCAN

    drawn = np.random.default_rng(seed).permutation(len(points_ND))[: spec.density_sample_size]
    sample_KD = points_ND[np.sort(drawn)]
    smallest = max(5, round(setting.share * len(sample_KD)))
    if len(sample_KD) < 2 * smallest:  # no room for two clusters
        return None
    min_samples = min(10, smallest)
    codes_K = HDBSCAN(min_cluster_size=smallest, min_samples=min_samples, copy=True).fit_predict(
        sample_KD
    )
    num_clusters = int(codes_K.max()) + 1
    if num_clusters < 2:
        return None
    is_core_K = codes_K >= 0
    # A point of the fit reaches as far as its own neighbourhood of the fit does.
    reach_K, _ = cKDTree(sample_KD).query(sample_KD, k=min_samples)
    return _Fitted(
        setting=replace(setting, size=num_clusters),
        arrays={
            "cores_KD": sample_KD[is_core_K],
            "codes_K": codes_K[is_core_K].astype(np.float64),
            "radius_K": reach_K[is_core_K, -1],
        },
        num_clusters=num_clusters,
    )


def _measure(fitted: _Fitted, space: _Space, spec: ClusterSpec, seed: int) -> _Fitted:
    """The fit with its silhouette, coverage, stability and BIC."""
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    rng = np.random.default_rng(seed)
    order = rng.permutation(len(space.points_ND))
    held_ND = space.points_ND[order[: spec.silhouette_size]]
    codes_N = _assign(fitted, space, held_ND)
    is_in_N = codes_N >= 0
    coverage = float(is_in_N.mean())
    num_seen = len(np.unique(codes_N[is_in_N]))
    silhouette = _NO_SCORE
    if 2 <= num_seen < is_in_N.sum():
        silhouette = float(silhouette_score(held_ND[is_in_N], codes_N[is_in_N])) * coverage
    agreements = []
    size = min(len(space.points_ND), spec.silhouette_size)
    for draw in range(spec.bootstraps):
        rows = rng.integers(0, len(space.points_ND), size)
        again = _fit(fitted.setting, space.points_ND[np.sort(rows)], seed + draw + 1, spec=spec)
        theirs_N = np.full(len(codes_N), -1) if again is None else _assign(again, space, held_ND)
        agreements.append(adjusted_rand_score(codes_N, theirs_N))
    figures = {
        "silhouette": silhouette,
        "stability": float(np.mean(agreements)),
        "coverage": coverage,
    }
    if fitted.bic is not None:
        figures["bic"] = fitted.bic
    if fitted.setting.share:
        figures["share"] = fitted.setting.share
    return replace(fitted, figures=figures)


def _choose(candidates: list[_Fitted], spec: ClusterSpec) -> _Fitted | None:
    """The best silhouette among stable ones, else the most stable; the earlier one on a tie.

    A clustering of fewer groups than asked for is told, not chosen: two groups (those who came
    lately and those who did not) are almost always the best apart, and say the least.
    """
    enough = [one for one in candidates if one.num_clusters >= spec.num_clusters[0]]
    if not enough:
        return None
    stable = [one for one in enough if one.figures["stability"] >= spec.min_stability]
    if stable:
        return max(stable, key=lambda one: one.figures["silhouette"])
    return max(enough, key=lambda one: one.figures["stability"])


def _stands(standing: ClusterModel, chosen: _Fitted, spec: ClusterSpec) -> bool:
    """Whether clusters in use are stable and nearly as good as what would replace them."""
    # Where nothing is stable, the clusters in use need not be more so than what would come.
    least_stability = min(spec.min_stability, chosen.figures["stability"])
    is_stable = standing.scores["stability"] >= least_stability
    silhouette = chosen.figures["silhouette"]
    least = silhouette - spec.clearly_better * abs(silhouette)
    return is_stable and standing.scores["silhouette"] >= least


def _assign(fitted: _Fitted, space: _Space, points_ND: NDArray[np.float64]) -> NDArray[np.int64]:
    """Codes by the very rule that the artifact assigns by."""
    return _bare_model(fitted, space).assign_points(points_ND)


def _bare_model(fitted: _Fitted, space: _Space) -> ClusterModel:
    num_features = len(space.scale.features)
    return ClusterModel(
        algorithm=fitted.setting.algorithm,
        scale=space.scale,
        mean_F=space.mean_F,
        components_DF=space.components_DF,
        centroids_CF=np.zeros((fitted.num_clusters, num_features)),
        keys=tuple(f"c{number:02d}" for number in range(1, fitted.num_clusters + 1)),
        labels=("",) * fitted.num_clusters,
        meanings=("",) * fitted.num_clusters,
        next_key=fitted.num_clusters + 1,
        arrays=fitted.arrays,
    )


def _to_model(
    fitted: _Fitted, space: _Space, spec: ClusterSpec, *, candidates: tuple[Mapping[str, Any], ...]
) -> ClusterModel:
    """The artifact: clusters in order of size, with centroids and names."""
    bare = _bare_model(fitted, space)
    codes_N = bare.assign_points(space.points_ND)
    sizes_C = np.bincount(codes_N[codes_N >= 0], minlength=fitted.num_clusters)
    sums_CF = np.zeros_like(bare.centroids_CF)
    np.add.at(sums_CF, codes_N[codes_N >= 0], space.scaled_NF[codes_N >= 0])
    centroids_CF = sums_CF / np.maximum(sizes_C, 1)[:, np.newaxis]
    # The largest first; of equal ones by where they lie.
    order = np.lexsort((*centroids_CF.T, -sizes_C))
    ordered = replace(bare, centroids_CF=centroids_CF).reordered(order)
    named = partial(name_clusters, ordered.centroids_CF, ordered.scale, keys=bare.keys)
    return replace(
        ordered,
        labels=named(spec),
        meanings=named(replace(spec, names={})),
        scores=dict(fitted.figures),
        candidates=candidates,
        left_out=tuple(name for name in spec.features if name not in space.scale.features),
    )
