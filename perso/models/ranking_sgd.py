"""Training on any events: whole users against shared candidates, mini-batch by mini-batch.

A step takes some users, scores their visits against one set of candidates, and moves only the
rows that it met. What the score is made of is decided in :mod:`perso.models.side`, what is lost
in :mod:`perso.models.losses`; this file runs the steps and closes the user side.

Measured on Online Retail (221,487 train pairs, 64 factors, one core, Recall@20 and NDCG@20 of the
next 18 days; popularity .043, .047): softmax .106, .100 in 2 s; pair by pair .100, .094 in 36 s.

Cost: a step of b visits and c candidates multiplies 6 · b · c · D numbers. 100 million pairs of
10 million users take 12,000 steps of 820 users and at most 9,200 candidates: 3 · 10^13 operations
an epoch at D = 64, and 4 · D bytes a user and item plus 12 to 20 bytes a pair of memory.
"""

# U users, V visits, I items, B users and R visits of a step, C candidates, P pairs, D factors

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from perso.data.prepared import Interactions
from perso.models import losses
from perso.models.candidates import CandidateDraw, Candidates
from perso.models.chosen_loss import ChosenLoss
from perso.models.early_stopping import EarlyStopping
from perso.models.feature_matrix import FeatureMatrix
from perso.models.histories import Histories, Step
from perso.models.progress import TrainingState
from perso.models.ranks import ALONE, Ranks
from perso.models.sgd_config import SgdConfig
from perso.models.sgd_state import SgdState, refuse_divergence
from perso.models.side import Gathered, Move, Side
from perso.models.side_features import SideFeatures
from perso.models.spectral import spectral_start
from perso.models.tables import make_table
from perso.models.user_solve import pair_blocks

NO_DEMAND: Final = math.log(0.1)
"""Bias at which an item starts that nobody has touched, where one interaction is about 0."""
_START: Final = 0.01  # deviation of a vector's numbers at the start, for dot products


class _Met(NamedTuple):
    """What a step has gathered."""

    users: Gathered
    items: Gathered
    visits: Gathered | None
    bias: Gathered | None


class RankingTrainer:
    """The tables of one training, and the steps that move them."""

    def __init__(
        self,
        interactions: Interactions,
        config: SgdConfig,
        *,
        device: torch.device,
        features: SideFeatures | None = None,
        own_dropout: float = 0.0,
        feature_rate: float = 1.0,
        ranks: Ranks = ALONE,
    ) -> None:
        """Draw the starting vectors.

        Args:
            interactions: What to learn from.
            config: Loss, sizes and seed.
            device: Where tables and pairs stay.
            features: Of users, visits and items.
            own_dropout: Chance that a step drops a row's own vector where it has features.
            feature_rate: Learning rate of feature vectors, relative to that of own ones.
            ranks: Who takes part; each has the same data and config.
        """
        self.config = config
        self._features = features
        self._own_dropout = own_dropout
        self._feature_rate = feature_rate
        self._ranks = ranks
        self._is_cosine = config.similarity == "cosine"
        self._generator = torch.Generator().manual_seed(config.seed)
        visits = None if features is None else features.visit_of_pair
        self._visits = visits
        self._stopping = EarlyStopping.of(interactions, config, ranks)
        self.histories = Histories(
            self._stopping.kept, device=device, visit_of_pair=self._stopping.keep(visits)
        )
        users_per_step = max(
            1,
            round(config.batch_size * len(self.histories.active_U) / len(self._stopping.kept)),
        )
        self.users_per_step = users_per_step
        self._draw = CandidateDraw(
            self.histories, config.negatives, config.num_negatives, users_per_step
        )
        starts = self._starting_vectors(self._stopping.kept)
        known = features or SideFeatures()
        self.users = self._side(starts[0], known.users)
        self.visits = None if known.visits is None else self._side(None, known.visits)
        self.items = self._side(starts[1], known.items)
        # Log popularity is the best bias without factors; the offset is for items never touched.
        start_I = torch.log(self.histories.mass_I + math.exp(NO_DEMAND))
        self.bias_base = float(start_I[self.histories.counts_I > 0].mean())
        self.bias = self._side((start_I - self.bias_base)[:, None], known.items, width=1)
        sides = {"users": self.users, "items": self.items, "bias": self.bias}
        if self.visits is not None:
            sides["visits"] = self.visits
        self._tables = {
            f"{side_name}.{name}": table
            for side_name, side in sides.items()
            for name, table in side.tables.items()
        }
        self._rates = {name: table.learning_rate for name, table in self._tables.items()}
        self._state = SgdState(tables=self._tables, generator=self._generator)
        self._loss_of = ChosenLoss(config, self._generator)
        self._loss = math.nan
        # Machines of several kinds may round a start differently.
        ranks.align_([table.values for table in self._tables.values()])

    @property
    def epoch(self) -> int:
        """Epochs that have been run."""
        return self._state.epoch

    @property
    def is_over(self) -> bool:
        """Whether all epochs have been run, or as many as it takes."""
        return self.epoch >= self.config.epochs or self._stopping.is_over

    def run_epoch(self) -> None:
        """One pass over all users.

        Raises:
            ValueError: If training diverged.
        """
        config, histories = self.config, self.histories
        total = float(histories.weights.sum())
        steps_per_epoch = math.ceil(len(histories.active_U) / self.users_per_step)
        num_steps, place = config.epochs * steps_per_epoch, self.epoch * steps_per_epoch
        loss_sum = torch.zeros((), device=histories.weights.device, dtype=torch.float64)
        order = torch.randperm(len(histories.active_U), generator=self._generator)
        shuffled = histories.active_U[order.to(histories.active_U.device)]
        for users_B in shuffled.split(self.users_per_step):
            self._set_pace(place / num_steps)
            loss_sum += self._step(users_B, total)
            place += 1
        self._state.epoch += 1
        self._loss = float(loss_sum) / total
        refuse_divergence(self._loss, self.epoch, config)
        self._stopping.watch(self.factors, self._tables)

    def loss(self) -> float:
        """Mean loss per interaction in the last epoch."""
        return self._loss

    @contextmanager
    def ended(self) -> Iterator[None]:
        """Within it, tables hold what training that ended here leaves: the best epoch's values."""
        with self._stopping.best(self._tables):
            yield

    def state(self) -> TrainingState:
        """Copies of tables, accumulators, random state and best epoch."""
        return {**self._state.arrays(), **self._stopping.arrays()}

    def resume(self, state: TrainingState) -> None:
        """Stand where the training stood whose state this is; the pace is this one's.

        Raises:
            ValueError: If the state has other arrays, or arrays of other shapes.
        """
        self._state.resume(state, more=self._stopping.shapes(self._tables))
        self._stopping.resume(state, self._tables)

    def histories_of(self, interactions: Interactions) -> Histories:
        """All the interactions, those included that early stopping has set aside."""
        if self._stopping.kept is interactions:
            return self.histories
        device = self.histories.weights.device
        return Histories(interactions, device=device, visit_of_pair=self._visits)

    @torch.no_grad()
    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """User and item vectors as a visit without context would be scored, and item biases."""
        histories = self.histories
        device = histories.weights.device
        item_ID = self.items.gather(torch.arange(histories.num_items, device=device)).vectors_BD
        user_UD = self.users.gather(torch.arange(histories.num_users, device=device)).vectors_BD
        if not self._is_cosine:
            return user_UD, item_ID, self.bias_base + self._biases()
        item_ID = normalize(item_ID, dim=1)
        if self.config.history_weight:
            share_P = histories.weights / histories.mass_U[histories.users]
            for part in pair_blocks(len(share_P)):
                vectors_PD = item_ID[histories.items[part].long()] * share_P[part, None]
                user_UD.index_add_(
                    0, histories.users[part], vectors_PD, alpha=self.config.history_weight
                )
        return normalize(user_UD, dim=1), item_ID, torch.zeros_like(item_ID[:, 0])

    def _biases(self) -> Tensor:
        items = torch.arange(self.histories.num_items, device=self.histories.weights.device)
        return self.bias.gather(items).vectors_BD[:, 0]

    def _step(self, users_B: Tensor, total: float) -> Tensor:
        histories = self.histories
        step = histories.of(users_B)
        drawn = self._draw.draw(step.item_P, self._generator)
        keep_item_C = self._keep(drawn.items_C, self.items.feature_vectors is not None)
        has_features = self.users.feature_vectors is not None or self.visits is not None
        items = self.items.gather(drawn.items_C, keep_own_B=keep_item_C)
        keep_user_B = self._keep(users_B, has_features)
        users = self.users.gather(users_B, keep_own_B=keep_user_B)
        item_CD = self._drop(items.vectors_BD)
        user_BD = self._drop(users.vectors_BD)
        # Rows are selected, not indexed: slopes of indexing add up in any order on two threads.
        visits_R, visit_P = torch.unique(step.visit_P, return_inverse=True)
        user_of_R = torch.empty_like(visits_R).index_copy_(0, visit_P, step.user_P)
        share = self._ranks.share(len(visits_R))
        visits = bias = None
        if self._is_cosine:
            item_CD = normalize(item_CD, dim=1)
            user_BD = normalize(self._with_history(user_BD, item_CD, step, drawn), dim=1)
            row_RD = user_BD.index_select(0, user_of_R[share]) / self._temperature
        else:
            row_RD = user_BD.index_select(0, user_of_R[share])
            if self.visits is not None:
                keep_visit_R = None if keep_user_B is None else keep_user_B[user_of_R]
                visits = self.visits.gather(visits_R, keep_own_B=keep_visit_R)
                row_RD = row_RD + visits.vectors_BD[share]
            bias = self.bias.gather(drawn.items_C, keep_own_B=keep_item_C)
        pairs = losses.Pairs(visit_P, drawn.column_P, step.weight_P)
        loss = self._descend_from(row_RD, item_CD, bias, pairs, drawn, share)
        moves = self._moves(_Met(users, items, visits, bias), drawn, total)
        self._ranks.sum_([loss, *(move.gradient for move in moves)])
        for table, rows, gradient in moves:
            table.descend(rows, gradient)
        return loss

    def _descend_from(
        self,
        row_RD: Tensor,
        item_CD: Tensor,
        bias: Gathered | None,
        pairs: losses.Pairs,
        drawn: Candidates,
        share: slice,
    ) -> Tensor:
        """The loss of this rank's share of a step, whose slopes go back to what was gathered."""
        rivals_PN = self._loss_of.draw_rivals(len(pairs.row_P), len(drawn.items_C))
        mine = self._ranks.pairs_of(share, pairs.row_P)
        row_P, column_P, weight_P = (values_P[mine] for values_P in pairs)
        if rivals_PN is not None:
            rivals_PN = rivals_PN.to(row_P.device)[mine]
        with torch.no_grad():
            logits_RC = row_RD @ item_CD.T
            if bias is not None:
                logits_RC += bias.vectors_BD.T
            log_chance_C = self._draw.chance_I[drawn.items_C].log()
            own = losses.Pairs(row_P - share.start, column_P, weight_P)
            loss, slope_RC = self._loss_of.slopes(logits_RC, own, log_chance_C, rivals_PN)
            slopes = [slope_RC @ item_CD, slope_RC.T @ row_RD]
        vectors = [row_RD, item_CD]
        if bias is not None:
            vectors.append(bias.vectors_BD)
            slopes.append(slope_RC.sum(0)[:, None])
        torch.autograd.backward(vectors, slopes)
        return loss

    def _moves(self, met: _Met, drawn: Candidates, total: float) -> list[Move]:
        """This rank's part of all gradients, its part of the penalty included."""
        config, num_users = self.config, len(self.histories.active_U)
        # Over an epoch each user is met once, and each item chance · steps times.
        share_B = len(met.users.vectors_BD) / num_users
        share_C = share_B / self._draw.step_chance_I[drawn.items_C]
        user_l2 = 2 * config.l2 * total / num_users / self._ranks.size
        item_l2_C = 2 * config.l2 * total / self.histories.num_items * share_C / self._ranks.size
        moves = met.users.moves(user_l2) + met.items.moves(item_l2_C)
        if met.visits is not None:
            moves += met.visits.moves(user_l2)
        if met.bias is not None:
            moves += met.bias.moves(0.0)
        return moves

    @property
    def _temperature(self) -> float:
        return 1.0 if self.config.loss == "contrastive" else self.config.temperature

    def _with_history(
        self, user_BD: Tensor, item_CD: Tensor, step: Step, drawn: Candidates
    ) -> Tensor:
        """Own vectors with a share of the mean of the users' items: they are all candidates."""
        if not self.config.history_weight:
            return user_BD
        mass_B = torch.zeros_like(user_BD[:, 0]).index_add_(0, step.user_P, step.weight_P)
        share_P = self.config.history_weight * step.weight_P / mass_B[step.user_P]
        item_PD = item_CD.index_select(0, drawn.column_P)
        return user_BD.index_add(0, step.user_P, item_PD * share_P[:, None])

    def _drop(self, vectors_BD: Tensor) -> Tensor:
        if not self.config.dropout:
            return vectors_BD
        kept = torch.rand(vectors_BD.shape, generator=self._generator) >= self.config.dropout
        return vectors_BD * kept.to(vectors_BD) / (1 - self.config.dropout)

    def _keep(self, rows_B: Tensor, has_features: bool) -> Tensor | None:
        """0 for the rows whose own vector this step leaves out, shape (B,)."""
        if not (has_features and self._own_dropout):
            return None
        kept = torch.rand(len(rows_B), generator=self._generator) >= self._own_dropout
        return kept.to(rows_B.device, torch.float32)

    def _set_pace(self, progress: float) -> None:
        schedule = self.config.schedule
        factor = 1.0
        if schedule == "linear":
            factor = 1 - progress
        elif schedule == "cosine":
            factor = (1 + math.cos(math.pi * progress)) / 2
        for name, table in self._tables.items():
            table.learning_rate = self._rates[name] * factor

    @property
    def _learning_rate(self) -> float:
        length = math.sqrt(self.config.num_factors) if self._is_cosine else 1.0
        return self.config.learning_rate / length

    def _starting_vectors(self, interactions: Interactions) -> tuple[Tensor, Tensor]:
        """Of users and items; drawn on the CPU so that every device starts alike."""
        config, device = self.config, self.histories.weights.device
        deviation = 1 / math.sqrt(config.num_factors) if self._is_cosine else _START
        if config.init == "spectral":
            both = spectral_start(interactions, config.num_factors, seed=config.seed)
            scaled = (v / max(float(np.sqrt(np.mean(v**2))), 1e-12) * deviation for v in both)
            user, item = (torch.from_numpy(v.astype(np.float32)).to(device) for v in scaled)
            return user, item
        sizes = (interactions.num_users, interactions.num_items)
        user, item = (
            torch.randn(size, config.num_factors, generator=self._generator) * deviation
            for size in sizes
        )
        return user.to(device), item.to(device)

    def _side(
        self, start: Tensor | None, matrix: FeatureMatrix | None, *, width: int | None = None
    ) -> Side:
        """A side whose own vectors start as given and whose feature vectors start small."""
        config, device = self.config, self.histories.weights.device
        own = vectors = None
        if start is not None:
            own = make_table(start, config.optimizer, learning_rate=self._learning_rate)
        if matrix is not None and matrix.num_values:
            shape = (matrix.num_values, width or config.num_factors)
            values = torch.randn(shape, generator=self._generator) * _START
            rate = self._learning_rate * self._feature_rate
            vectors = make_table(values.to(device), config.optimizer, learning_rate=rate)
        known = self._features or SideFeatures()
        return Side(
            own,
            features=matrix if vectors else None,
            feature_vectors=vectors,
            from_history=known.from_history,
        )
