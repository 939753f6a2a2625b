"""The margin by which every family has to beat counting, on a shop of planted tastes."""

import numpy as np
import pytest

from perso.evaluation.report import evaluate
from perso.models.als_config import AlsConfig
from perso.models.blend_config import BlendConfig
from perso.models.families import fit_model
from perso.models.hybrid_config import HybridConfig
from perso.models.knn_config import ItemKnnConfig
from perso.models.popularity_config import PopularityConfig
from perso.models.sgd_config import SgdConfig
from perso.models.side_data import SideData
from perso.models.spectral_config import SpectralConfig

pytestmark = pytest.mark.ray  # the shop is prepared there

SEEDS = range(3)
CONFIGS = {
    "item_knn": [ItemKnnConfig()],
    "als": [AlsConfig(num_factors=16, seed=seed) for seed in SEEDS],
    "spectral": [SpectralConfig(num_factors=16, seed=seed) for seed in SEEDS],
    "sgd": [SgdConfig(num_factors=16, batch_size=1024, seed=seed) for seed in SEEDS],
    "hybrid": [HybridConfig(num_factors=16, batch_size=1024, seed=seed) for seed in SEEDS],
    "blend": [BlendConfig(spectral=SpectralConfig(num_factors=16))],
}


@pytest.fixture(scope="module")
def measure(prepared):
    """Recall and NDCG of a family's model on the test period."""
    known, held_out = prepared.interactions("train", "validation"), prepared.interactions("test")
    side = SideData(item_features=prepared.catalog())

    def measure(config):
        model = fit_model(known, config, side)
        report = evaluate(model, train=known, held_out=held_out, ks=(20,))
        return np.array([report.overall["recall@20"], report.overall["ndcg@20"]])

    return measure


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_beats_popularity_by_a_quarter_with_every_seed(measure, family):
    popular = measure(PopularityConfig())
    for config in CONFIGS[family]:
        assert (measure(config) > 1.25 * popular).all()
