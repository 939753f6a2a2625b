"""The margin by which the factor model has to beat counting, on a shop of planted tastes."""

import numpy as np
import pytest

from perso.evaluation.report import evaluate
from perso.models.popularity import fit_popularity
from perso.models.sgd import SgdConfig, fit_sgd


@pytest.mark.ray
def test_factors_beat_popularity_by_a_quarter_with_every_seed(prepared):
    known, held_out = prepared.interactions("train", "validation"), prepared.interactions("test")

    def measure(model):
        report = evaluate(model, train=known, held_out=held_out, ks=(20,))
        return np.array([report.overall["recall@20"], report.overall["ndcg@20"]])

    popular = measure(fit_popularity(known))
    for seed in range(3):
        config = SgdConfig(num_factors=16, batch_size=1024, seed=seed)
        assert (measure(fit_sgd(known, config)) > 1.25 * popular).all()
