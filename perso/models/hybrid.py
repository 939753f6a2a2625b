"""The hybrid: factors that also know what users, items and visits are.

A user in a visit is own vector + affinities and attributes + segment and context; an item is own
vector + category, brand, price tier, tags and words. Both sums go through one dot product, so
serving needs no network, a new item ranks by its catalogue row and a new user by region and hour.
The steps are those of :mod:`perso.models.ranking_sgd`; this file builds what they read and closes
both sides. Items that nobody has touched take no part: they would only learn what they are not.

Measured on the test period of Online Retail (NDCG@20, mean of three seeds, plain SGD in
brackets): known users .099 (.096), newcomers .086 (.083), new items among themselves .49 (.26), in
7 s (3 s).

Cost beside plain SGD: each step also moves the values that its rows have, some ten a row; the
visits of 100 million pairs take 2 kB a thousand and a minute to sort.

References:
    Kula, Metadata embeddings for user and item cold-start recommendations, CBRecSys 2015 (sums of
    feature embeddings). Volkovs et al., DropoutNet, NeurIPS 2017 (own vectors left out).
"""

# U users, I items, T items touched, V visits, S feature values, D factors

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]
from torch import Tensor

from perso.data.prepared import Interactions
from perso.models.affinity import affinity, affinity_name
from perso.models.device import find_device
from perso.models.factors import FactorModel
from perso.models.feature_columns import FeatureColumn, FittedColumns, fit_columns, infer_columns
from perso.models.feature_encoder import FeatureEncoder
from perso.models.feature_matrix import FeatureMatrix, side_by_side
from perso.models.histories import Histories
from perso.models.hybrid_config import HybridConfig
from perso.models.newton_encoder import MIN_PRIOR
from perso.models.progress import OnEpoch, TrainingState, train
from perso.models.ranking_sgd import NO_DEMAND, RankingTrainer
from perso.models.ranks import ALONE, Ranks
from perso.models.request_features import SEGMENT, RequestFeatures
from perso.models.sgd_state import copied
from perso.models.side import Side
from perso.models.side_data import SideData
from perso.models.side_features import SideFeatures
from perso.models.user_solve import ItemSide, newton_encoder, solve_users
from perso.models.visits import Visits

__all__ = ["HybridConfig", "fit_hybrid"]


def fit_hybrid(
    interactions: Interactions,
    side: SideData,
    config: HybridConfig,
    *,
    on_epoch: OnEpoch | None = None,
    resume: TrainingState | None = None,
    ranks: Ranks = ALONE,
) -> FactorModel:
    """Train a factor model on interactions and features.

    Deterministic as :func:`perso.models.sgd.fit_sgd` is. Without any features it is that model.

    Args:
        interactions: What to learn from; not changed.
        side: Segments and features of all users and items of the vocabularies; values that only
            others than those of the interactions have are ignored.
        config: Columns, loss, sizes and seed.
        on_epoch: Called after each epoch; what it raises ends the training.
        resume: State of an earlier training of the same data, sizes and optimizer, to go on from
            under this config's pace and penalties.
        ranks: Who takes part; each with the same arguments. The result is that of one process to
            rounding, and the same on all.

    Returns:
        The model. A user's vector has affinities and attributes in it; segment and context are
        added by request. Its ``item_encoder`` reads items that the vocabulary lacks.

    Raises:
        ValueError: If there are no interactions, a column is missing or does not fit its kind,
            a table is not aligned with the vocabulary, CUDA is asked for and absent, training
            diverged, or the state does not fit.
    """
    if not len(interactions):
        raise ValueError("there are no interactions to train on; widen the training period")
    device = find_device(config.device)
    inputs = _Inputs.read(interactions, side, config)
    trainer = RankingTrainer(
        inputs.compact,
        config.sgd,
        device=device,
        features=inputs.side_features(config.affinities),
        own_dropout=config.feature_dropout,
        feature_rate=config.feature_rate,
        ranks=ranks,
    )

    def model() -> FactorModel:
        with trainer.ended():
            return _close(trainer, inputs, config)

    return train(trainer, model, on_epoch=on_epoch, resume=resume)


@dataclass(frozen=True, kw_only=True)
class _Features:
    """The features of one side."""

    columns: FittedColumns
    matrix: FeatureMatrix


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """What training reads, and what its result is told in."""

    interactions: Interactions
    touched_T: NDArray[np.int64]
    """The items that have an interaction."""
    compact: Interactions
    """The interactions over these items alone."""
    items: _Features | None
    """Of all items."""
    users: _Features | None
    visits: Visits | None

    @classmethod
    def read(cls, interactions: Interactions, side: SideData, config: HybridConfig) -> "_Inputs":
        """Columns fitted on the rows with an interaction, and the visits."""
        touched_T, compact = _without_untouched(interactions)
        context = config.context
        return cls(
            interactions=interactions,
            touched_T=touched_T,
            compact=compact,
            items=_read("item", side.item_features, config.item_columns, interactions),
            users=_read("user", side.user_features, config.user_columns, interactions),
            visits=Visits.of(
                interactions,
                segments=side.segments if config.use_segments else None,
                context=tuple(interactions.context_codes) if context is None else context,
            ),
        )

    def side_features(self, affinities: Sequence[str]) -> SideFeatures:
        """The features of users, visits and touched items."""
        items, visits = self.items, self.visits
        return SideFeatures(
            users=_static(self.interactions, items, self.users, affinities),
            visits=None if visits is None else visits.features,
            visit_of_pair=None if visits is None else visits.of_pair_P,
            items=None if items is None else items.matrix.take(self.touched_T),
            from_history=frozenset({SEGMENT, *map(affinity_name, affinities)}),
        )


def _read(
    what: Literal["item", "user"],
    table: pa.Table | None,
    specs: Sequence[FeatureColumn] | None,
    interactions: Interactions,
) -> _Features | None:
    """All rows, as columns fitted on the rows with an interaction read them; none without any."""
    if table is None:
        if specs:
            raise ValueError(
                f"{what}_columns names {[spec.column for spec in specs]}, "
                f"but there are no features of {what}s"
            )
        return None
    num_rows = interactions.num_items if what == "item" else interactions.num_users
    if table.num_rows != num_rows:
        raise ValueError(
            f"features of {table.num_rows} {what}s, but there are {num_rows}; "
            "give one row per row of the vocabulary"
        )
    rows = interactions.item_indices if what == "item" else interactions.user_indices
    specs = infer_columns(table) if specs is None else specs
    columns = fit_columns(table.take(pa.array(np.unique(rows))), specs)
    matrix = columns.encode(table)
    return _Features(columns=columns, matrix=matrix) if matrix.num_values else None


def _without_untouched(interactions: Interactions) -> tuple[NDArray[np.int64], Interactions]:
    """The items touched, and the interactions over them alone."""
    touched_T, places = np.unique(interactions.item_indices, return_inverse=True)
    compact = replace(interactions, num_items=len(touched_T), item_indices=places.astype(np.int32))
    return touched_T.astype(np.int64), compact


def _static(
    interactions: Interactions,
    items: _Features | None,
    users: _Features | None,
    affinities: Sequence[str],
) -> FeatureMatrix | None:
    """What stays with a user between requests: attributes, and shares of the history."""
    matrices = [] if users is None else [users.matrix]
    if items is not None:
        present = [name for name in affinities if name in items.matrix.starts]
        matrices += [affinity(interactions, items.matrix, name) for name in present]
    return side_by_side(matrices) if matrices else None


def _close(trainer: RankingTrainer, inputs: _Inputs, config: HybridConfig) -> FactorModel:
    """The trained items, those untouched by their features, and all users solved."""
    trained = trainer.factors()
    items, num_items = inputs.items, inputs.interactions.num_items
    unknown_bias = min(float(trained[2].min()), NO_DEMAND)
    item_encoder = None if items is None else _item_encoder(items, trainer, unknown_bias)
    whole = trainer.histories_of(inputs.compact)
    closed = _close_users(trainer, whole, trained, inputs.visits, config)
    if items is None or item_encoder is None:
        item_ID = np.zeros((num_items, config.num_factors), np.float32)
        bias_I = np.full(num_items, unknown_bias, np.float32)
    else:  # those that nobody has touched stay what their features say
        item_ID, bias_I = item_encoder.encode_matrix(items.matrix)
    touched_T = inputs.touched_T
    item_ID[touched_T], bias_I[touched_T] = (part.cpu().numpy() for part in trained[1:])
    return FactorModel(
        user_factors_UD=closed.user_UD.cpu().numpy(),
        user_bias_U=np.zeros(len(closed.user_UD), np.float32),
        user_weight_U=whole.mass_U.cpu().numpy(),
        item_factors_ID=item_ID,
        item_bias_I=bias_I,
        global_bias=0.0,
        encoder=newton_encoder(closed.items, closed.prior, weight_unit=whole.weight_unit),
        request_features=_request_features(inputs.visits, trainer, config.num_factors),
        item_encoder=item_encoder,
        user_encoder=_user_encoder(inputs.users, trainer),
    )


class _ClosedUsers(NamedTuple):
    user_UD: Tensor
    items: ItemSide
    prior: float


def _close_users(
    trainer: RankingTrainer,
    whole: Histories,
    trained: tuple[Tensor, Tensor, Tensor],
    visits: Visits | None,
    config: HybridConfig,
) -> _ClosedUsers:
    """Users solved from the trained items, held at what their features say."""
    user_UD, item_TD, bias_T = trained
    items = ItemSide.under(item_TD, torch.softmax(bias_T.double(), 0))
    mean_mass = float(whole.mass_U.double().sum()) / len(whole.active_U)
    prior = max(2 * config.l2, MIN_PRIOR) * mean_mass
    offset_UD = None
    if visits is not None:
        # Over distinct values, not over visits: there may be as many of those as pairs.
        mass_UV = sparse.csr_array(
            (whole.weights.cpu().numpy(), (whole.users.cpu().numpy(), visits.of_pair_P)),
            shape=(len(user_UD), len(visits.features)),
        )
        offset_UD = (mass_UV @ visits.features.csr) @ _vectors(trainer.visits)
    solved_UD = solve_users(
        whole,
        items,
        prior,
        static_UD=trainer.users.feature_part(torch.arange(len(user_UD), device=user_UD.device)),
        offset_UD=None if offset_UD is None else torch.from_numpy(offset_UD).to(user_UD),
    )
    return _ClosedUsers(solved_UD, items, prior)


def _vectors(side: Side | None) -> NDArray[np.float32]:
    """The trained vectors of a side's feature values, shape (S, D)."""
    assert side is not None and side.feature_vectors is not None
    return copied(side.feature_vectors.values)


def _item_encoder(items: _Features, trainer: RankingTrainer, unknown_bias: float) -> FeatureEncoder:
    return FeatureEncoder(
        columns=items.columns,
        vectors_SD=_vectors(trainer.items),
        bias_S=_vectors(trainer.bias)[:, 0],
        base_bias=trainer.bias_base,
        unknown_bias=unknown_bias,
    )


def _user_encoder(users: _Features | None, trainer: RankingTrainer) -> FeatureEncoder | None:
    if users is None:
        return None
    num_values = users.matrix.num_values  # affinities come after them
    return FeatureEncoder(
        columns=users.columns,
        vectors_SD=_vectors(trainer.users)[:num_values],
        bias_S=np.zeros(num_values, np.float32),
        base_bias=0.0,
        unknown_bias=0.0,
    )


def _request_features(
    visits: Visits | None, trainer: RankingTrainer, num_factors: int
) -> RequestFeatures:
    if visits is None:
        return RequestFeatures(num_factors=num_factors)
    vectors_SD = _vectors(trainer.visits)
    return RequestFeatures(
        num_factors=num_factors,
        columns={
            name: (names, vectors_SD[visits.features.span(name)])
            for name, names in visits.names.items()
        },
    )
