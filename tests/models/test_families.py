import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

import perso.models
from perso.models.families import FAMILIES, ModelConfig, load_personal_model
from perso.models.sgd_config import SgdConfig

MODULES = {path.stem for path in Path(perso.models.__file__).parent.glob("*.py")}
CONFIGS = sorted(name for name in MODULES if name.endswith("_config"))
SERVING = [
    "als_encoder",
    "block_encoder",
    "bundle",
    "encoder",
    "encoders",
    "factors",
    "families",
    "feature_columns",
    "feature_encoder",
    "history",
    "item_knn",
    "newton_encoder",
    "popularity",
    "protocol",
    "related_items",
    "request_features",
    "seen",
    "side_data",
    "sum_encoder",
    "top_k",
]


def loaded_by(code):
    """Names of heavy packages that some code has loaded."""
    ask = "; import sys; print([m for m in ('torch', 'numba', 'ray') if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code + ask], check=True, capture_output=True, text=True
    )
    return found.stdout.strip()


def test_settings_and_serving_load_without_torch_numba_or_ray():
    """All at once, for speed; if it fails, the import that is to blame is in this list."""
    names = ", ".join(f"perso.models.{name}" for name in [*CONFIGS, *SERVING])
    assert len(CONFIGS) >= len(FAMILIES) - 1
    assert loaded_by(f"import {names}") == "[]"


def test_a_served_model_answers_without_torch(two_tastes, tmp_path):
    """Loading by class is lazy, so that an import alone proves nothing."""
    from perso.models.families import fit_model
    from perso.models.spectral_config import SpectralConfig

    fit_model(two_tastes, SpectralConfig(num_factors=2, device="cpu")).save(tmp_path)
    answer = (
        "from pathlib import Path; from perso.models.families import load_personal_model; "
        "from perso.models.protocol import WeightedItems; "
        f"model = load_personal_model(Path({str(tmp_path)!r})); "
        "model.score_recent(0, WeightedItems.empty()); model.similarity(0)"
    )
    assert "torch" not in loaded_by(answer)


def test_every_family_is_named_by_its_settings():
    assert set(FAMILIES) == {"popularity", "item_knn", "als", "spectral", "sgd", "hybrid", "blend"}
    for family, config in FAMILIES.items():
        assert config().family == family


def test_settings_are_built_from_plain_data_by_their_family():
    adapter = TypeAdapter(ModelConfig)
    found = adapter.validate_python({"family": "sgd", "loss": "bpr", "num_factors": 8})
    assert found == SgdConfig(loss="bpr", num_factors=8)
    for family, config in FAMILIES.items():
        assert adapter.validate_python({"family": family}) == config()


@pytest.mark.parametrize("document", [{"family": "oracle"}, {}, {"family": "sgd", "epochs": 0}])
def test_settings_of_no_family_or_out_of_range_are_refused(document):
    with pytest.raises(ValidationError):
        TypeAdapter(ModelConfig).validate_python(document)


@pytest.mark.parametrize(
    ("document", "error", "says"),
    [
        ({"class": "popularity"}, ValueError, "'popularity'.*serves factors and item_knn"),
        ({"class": "oracle"}, ValueError, "unknown class of model 'oracle'"),
        ({}, KeyError, "class"),
    ],
)
def test_a_folder_of_something_that_cannot_serve_is_refused(tmp_path, document, error, says):
    (tmp_path / "model.json").write_text(json.dumps(document))
    with pytest.raises(error, match=says):
        load_personal_model(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(OSError, match=r"model\.json"):
        load_personal_model(tmp_path)
