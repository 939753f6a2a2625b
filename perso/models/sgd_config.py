"""Settings of SGD training, readable without loading torch."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

RankingLoss = Literal["softmax", "contrasted", "bpr", "logistic", "contrastive"]
SgdLoss = Literal["softmax", "contrasted", "bpr", "logistic", "contrastive", "squared"]
Similarity = Literal["dot", "cosine"]


@dataclass(frozen=True, kw_only=True)
class SgdConfig:
    """One training run.

    The defaults are the middle of the range that works on Online Retail (3,300 items, 245,000
    pairs) whatever the half-life of the weights. For large catalogues of binary data the cosine
    is better: ``similarity: cosine, loss: contrasted, learning_rate: 1.0, l2: 0, epochs: 30``.

    Raises:
        ValueError: If a setting is out of range.
    """

    family: Literal["sgd"] = "sgd"
    loss: SgdLoss = "softmax"
    """``softmax``: a row's items against all candidates; ``contrasted``: each item against what
    the row has not touched; ``bpr``, ``logistic``, ``contrastive`` (cosine contrastive): see
    :mod:`perso.models.losses`; ``squared`` predicts a number per pair, see ``target``."""
    target: Literal["ratings", "weights"] = "ratings"
    """What ``squared`` predicts: stars of the pairs that carry them, or every pair's weight."""
    similarity: Similarity = "dot"
    """``cosine`` compares directions only and has no item bias."""
    temperature: float = 0.1
    """Cosines are divided by it before the loss; cosine only, and not for ``contrastive``."""
    num_factors: int = 64
    """Length of user and item vectors."""
    learning_rate: float = 0.1
    """Step size: about how far a vector moves in its first step; for cosine in units of its
    length."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls over the epochs: not at all, or to 0."""
    optimizer: Literal["adagrad", "adam"] = "adagrad"
    """Both touch only the rows of a batch; Adam wants a learning rate ten times smaller."""
    l2: float = 0.1
    """Pull of user and item vectors to zero, in units of the loss per interaction."""
    dropout: float = 0.0
    """Share of the numbers of user and item vectors that a step leaves out."""
    init: Literal["random", "spectral"] = "random"
    """Where vectors start: small and random, or from the truncated SVD."""
    history_weight: float = 0.0
    """How much of the mean vector of a user's items is added to the user's own; cosine only."""
    epochs: int = 10
    """Passes over the interactions; with ``patience`` the most."""
    patience: int | None = None
    """Epochs without a better ranking of interactions set aside (5 %) after which training stops
    and the best epoch is taken; none: all epochs. Not for ``squared``."""
    batch_size: int = 8192
    """Interactions per step; ranking losses take as many whole users as hold them on average."""
    negatives: Literal["uniform", "popularity", "in_batch"] = "uniform"
    """Where candidates come from beside the step's own items: drawn alike, drawn by the root of
    popularity, or nowhere."""
    num_negatives: int = 1024
    """Items drawn per step that all its users are told apart from; a smaller catalogue is used
    whole, unless ``negatives`` is ``in_batch``."""
    negatives_per_pair: int = 16
    """Candidates that ``bpr`` compares each interaction with."""
    negative_weight: float = 1.0
    """Weight of all that a user has not touched, relative to what the user has (``logistic``), or
    of its mean per interaction (``contrastive``, where hundreds work)."""
    margin: float = 0.8
    """Cosine below which ``contrastive`` leaves an item alone."""
    seed: int = 0
    """Start of every random number; the same seed gives the same model on the same CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` takes CUDA where there is a device."""

    def __post_init__(self) -> None:
        check_sgd(self)
        if not -1 <= self.margin <= 1:
            raise ValueError(f"margin is {self.margin}; a cosine lies from -1 to 1")
        if self.loss == "squared" and (
            self.init != "random" or self.dropout or self.patience or self.schedule != "constant"
        ):
            raise ValueError(
                "loss 'squared' starts at random, keeps its pace and every number and runs all "
                "epochs: leave init, schedule, dropout and patience as they are"
            )
        if self.history_weight and self.similarity != "cosine":
            raise ValueError("history_weight needs similarity 'cosine'; set it to 0 for 'dot'")
        if (self.loss == "contrastive") != (self.similarity == "cosine") and self.loss in {
            "contrastive",
            "squared",
        }:
            needed = "cosine" if self.loss == "contrastive" else "dot"
            raise ValueError(
                f"loss {self.loss!r} needs similarity {needed!r}, not {self.similarity!r}"
            )


def check_sgd(config: Any) -> None:
    """Refuse settings out of range; shared by the configurations that the engine trains from."""
    for name in ("num_factors", "epochs", "batch_size", "num_negatives", "negatives_per_pair"):
        if getattr(config, name, 1) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}; give 1 or more")
    for name in ("learning_rate", "temperature", "negative_weight"):
        value = getattr(config, name, 1.0)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}; give a number above 0")
    for name in ("l2", "history_weight"):
        value = getattr(config, name, 0.0)
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}; give 0 or more")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout is {config.dropout}; give a share from 0 to below 1")
    if config.patience is not None and config.patience < 1:
        raise ValueError(f"patience is {config.patience}; give 1 or more, or none")
    if config.seed < 0:
        raise ValueError(f"seed is {config.seed}; give 0 or more")
    for setting in fields(config):
        allowed, value = get_args(setting.type), getattr(config, setting.name)
        named = bool(allowed) and all(isinstance(choice, str) for choice in allowed)
        if named and value not in allowed:
            raise ValueError(f"{setting.name} is {value!r}; give one of {allowed}")
