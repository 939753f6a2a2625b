"""Every model family by its name: its settings here, its training behind one call.

Settings load without torch or numba; a family's code is imported when it trains or loads.
"""

import json
from pathlib import Path
from typing import Annotated, Final, get_args

from pydantic import Field

from perso.data.prepared import Interactions
from perso.models.als_config import AlsConfig
from perso.models.blend_config import BlendConfig
from perso.models.hybrid_config import HybridConfig
from perso.models.knn_config import ItemKnnConfig
from perso.models.popularity_config import PopularityConfig
from perso.models.progress import OnEpoch, TrainingState
from perso.models.protocol import PersonalModel, Recommender
from perso.models.sgd_config import SgdConfig
from perso.models.side_data import SideData
from perso.models.spectral_config import SpectralConfig

OneOfTheConfigs = (
    PopularityConfig
    | ItemKnnConfig
    | AlsConfig
    | SpectralConfig
    | SgdConfig
    | HybridConfig
    | BlendConfig
)
ModelConfig = Annotated[OneOfTheConfigs, Field(discriminator="family")]
"""Settings of any family; in YAML the key ``family`` says which."""

FAMILIES: Final = {config.family: config for config in get_args(OneOfTheConfigs)}
"""Class of settings by family."""


def fit_model(  # noqa: PLR0911 - one return per family
    interactions: Interactions,
    config: OneOfTheConfigs,
    side: SideData | None = None,
    *,
    on_epoch: OnEpoch | None = None,
    resume: TrainingState | None = None,
) -> Recommender:
    """Train a model of any family.

    Args:
        interactions: What to learn from; not changed.
        config: The family's settings.
        side: What else is known; families without use for it ignore it.
        on_epoch: Called after each epoch by families that have epochs; what it raises ends the
            training and reaches the caller.
        resume: State that :attr:`Progress.state` of a training of the same data, family, sizes,
            optimizer and patience gave; training goes on from there, to the same bytes on one
            thread as in one go. The learning rate and penalties are those of this config.

    Raises:
        ValueError: If there are no interactions, the family cannot learn from them, or the state
            is not of this training.
    """
    if resume is not None and not isinstance(config, AlsConfig | SgdConfig | HybridConfig):
        raise ValueError(
            f"family {config.family!r} cannot be resumed; resume als, sgd or hybrid, or train anew"
        )
    side = side or SideData()
    match config:
        case PopularityConfig():
            from perso.models.popularity import fit_popularity

            return fit_popularity(
                interactions,
                side.segments,
                smoothing=config.smoothing,
                half_life_days=config.half_life_days,
            )
        case ItemKnnConfig():
            from perso.models.item_knn import fit_item_knn

            return fit_item_knn(interactions, config)
        case AlsConfig():
            from perso.models.als import fit_als

            return fit_als(interactions, config, on_epoch=on_epoch, resume=resume)
        case SpectralConfig():
            from perso.models.spectral import fit_spectral

            return fit_spectral(interactions, config)
        case SgdConfig():
            from perso.models.sgd import fit_sgd

            return fit_sgd(interactions, config, on_epoch=on_epoch, resume=resume)
        case HybridConfig():
            from perso.models.hybrid import fit_hybrid

            return fit_hybrid(interactions, side, config, on_epoch=on_epoch, resume=resume)
        case BlendConfig():
            from perso.models.blend import fit_blend

            return fit_blend(interactions, config, on_epoch=on_epoch)


def load_personal_model(folder: Path) -> PersonalModel:
    """The model that was saved into a folder, by the class that it says it is.

    Raises:
        OSError: If a file is missing.
        ValueError: If a file is damaged, or the class is unknown or cannot serve.
        KeyError: If a parameter is missing.
    """
    name = json.loads((folder / "model.json").read_text(encoding="utf-8"))["class"]
    if name == "factors":
        from perso.models.factors import FactorModel

        return FactorModel.load(folder)
    if name == "item_knn":
        from perso.models.item_knn import ItemKnnModel

        return ItemKnnModel.load(folder)
    raise ValueError(f"unknown class of model {name!r}; this perso serves factors and item_knn")
