"""A bundle comes back as it was saved, or not at all."""

import json
import shutil
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest

from perso.data.groups import UserGroups
from perso.data.vocabulary import Vocabulary
from perso.errors import ArtifactError
from perso.models.baskets import cut_baskets
from perso.models.blend_config import AlsPart, BlendConfig, LearnedPart
from perso.models.bundle import load_bundle, save_bundle
from perso.models.families import fit_model
from perso.models.knn_config import ItemKnnConfig
from perso.models.popularity import fit_popularity
from perso.models.protocol import UserBatch
from perso.models.related_items import RelatedItems, fit_bought_together
from perso.models.seen import SeenItems
from perso.models.sgd import SgdConfig, fit_sgd
from perso.models.spectral_config import SpectralConfig
from perso.schema import CATALOG_SCHEMA

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def parts(two_tastes):
    item_ids = [f"item-{index}" for index in range(24)]
    return {
        "users": Vocabulary(pa.array([f"user-{index}" for index in range(41)])),
        "items": Vocabulary(pa.array(item_ids)),
        "model": fit_sgd(two_tastes, SgdConfig(num_factors=3, epochs=2, batch_size=64)),
        "popularity": fit_popularity(two_tastes, UserGroups.from_names(["a"] * 41)),
        "catalog": pa.Table.from_pylist(
            [{"item_id": item_id, "categories": ["x"], "price": 1.5} for item_id in item_ids],
            schema=CATALOG_SCHEMA,
        ),
        "seen": SeenItems.from_interactions(two_tastes),
        "bought_together": fit_bought_together(cut_baskets(two_tastes)),
        "data_key": "abc",
        "spec": {"l2": 0.1},
        "metrics": {"overall": {"recall@20": 0.5}},
        "trained_until": datetime(2026, 2, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        "created_at": NOW,
    }


@pytest.fixture(scope="module")
def saved(parts, tmp_path_factory):
    return save_bundle(tmp_path_factory.mktemp("bundles") / "one", **parts)


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to damage."""
    return shutil.copytree(saved, tmp_path / "copy")


@pytest.mark.parametrize("verify", [False, True])
def test_a_saved_bundle_loads_as_it_was(saved, parts, verify):
    bundle = load_bundle(saved, verify=verify)
    users = UserBatch(user_indices=np.arange(-1, 41))
    np.testing.assert_array_equal(bundle.model.score(users), parts["model"].score(users))
    np.testing.assert_array_equal(bundle.popularity.score(users), parts["popularity"].score(users))
    assert bundle.items.id_of(3) == "item-3"
    assert bundle.users.index_of("user-40") == 40
    assert bundle.catalog.equals(parts["catalog"])
    assert bundle.seen.of(5).tolist() == parts["seen"].of(5).tolist()
    for loaded, given in zip(
        bundle.bought_together.of(3), parts["bought_together"].of(3), strict=True
    ):
        assert len(given) > 0
        np.testing.assert_array_equal(loaded, given)
    assert bundle.manifest["data_key"] == "abc"
    assert bundle.manifest["spec"] == {"l2": 0.1}
    assert bundle.manifest["metrics"] == parts["metrics"]
    assert bundle.manifest["created_at"] == "2026-03-01T12:00:00+00:00"
    assert bundle.manifest["trained_until"] == "2026-02-01T00:00:00+00:00"


def test_a_bundle_is_data_only(saved):
    assert {path.suffix for path in saved.rglob("*") if path.is_file()} == {
        ".npy",
        ".json",
        ".arrow",
        ".parquet",
    }


def test_factors_are_memory_mapped(saved):
    assert isinstance(load_bundle(saved).model.item_factors_ID, np.memmap)


def test_the_same_parts_give_the_same_bytes(saved, parts, tmp_path):
    again = save_bundle(tmp_path / "deep" / "two", **parts)
    names = {path.relative_to(saved) for path in saved.rglob("*") if path.is_file()}
    for name in names:
        assert (again / name).read_bytes() == (saved / name).read_bytes(), name


def test_an_existing_folder_is_never_overwritten(saved, parts):
    with pytest.raises(ArtifactError, match="exists"):
        save_bundle(saved, **parts)


def test_a_bundle_that_cannot_be_finished_leaves_nothing(parts, tmp_path):
    with pytest.raises(TypeError):
        save_bundle(tmp_path / "one", **(parts | {"metrics": {"bad": object()}}))
    assert list(tmp_path.iterdir()) == []


def test_parts_of_different_size_are_refused(parts, tmp_path):
    with pytest.raises(ValueError, match=r"number of users: \{'users': 1"):
        save_bundle(tmp_path / "one", **(parts | {"users": Vocabulary(pa.array(["ann"]))}))
    lists_of_one = RelatedItems(
        item_indices_IN=np.zeros((1, 2), np.int32), scores_IN=np.ones((1, 2), np.float32)
    )
    with pytest.raises(ValueError, match=r"number of items: .*'bought_together': 1\}"):
        save_bundle(tmp_path / "one", **(parts | {"bought_together": lists_of_one}))


def test_a_catalogue_in_another_order_is_refused(parts, tmp_path):
    shuffled = parts["catalog"].take(list(range(24))[::-1])
    with pytest.raises(ValueError, match="order of the item vocabulary"):
        save_bundle(tmp_path / "one", **(parts | {"catalog": shuffled}))


def test_an_instant_without_a_zone_is_refused(parts, tmp_path):
    with pytest.raises(ValueError, match=r"created_at .* has no time zone"):
        save_bundle(tmp_path / "one", **(parts | {"created_at": datetime(2026, 1, 1)}))


def all_files(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def test_every_missing_file_is_noticed(saved, folder):
    for name in all_files(saved):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(ArtifactError):
            load_bundle(folder)
        (folder / name).write_bytes(content)
    load_bundle(folder, verify=True)


def test_every_truncated_file_is_noticed(saved, folder):
    for name in all_files(saved):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1])
        with pytest.raises(ArtifactError):
            load_bundle(folder)
        (folder / name).write_bytes(content)


def test_a_flipped_bit_is_noticed_when_checksums_are_verified(saved, folder):
    for name in set(all_files(saved)) - {"manifest.json"}:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(ArtifactError, match="does not match its checksum"):
            load_bundle(folder, verify=True)
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)


def test_a_file_of_another_origin_is_refused(folder):
    np.save(folder / "popularity" / "daypart.npy", np.zeros((1, 24), np.float32))
    with pytest.raises(ArtifactError, match=r"popularity/daypart\.npy"):
        load_bundle(folder)


def test_garbage_of_the_right_size_is_an_artifact_error(folder):
    for name in all_files(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(b"\x80" * len(content))
        with pytest.raises(ArtifactError):
            load_bundle(folder)
        (folder / name).write_bytes(content)


def test_a_pickle_is_never_unpickled(folder, tmp_path):
    path = folder / "model" / "item_bias.npy"
    np.save(path, np.array([{"run": "me"}] * 24, object), allow_pickle=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model/item_bias.npy"]["size"] = path.stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="model cannot be read"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format_version": 1}, "format version 1, this perso reads 2"),
        ({"format": "onnx"}, "not a model bundle of perso"),
        ({"files": None}, r"lacks \['files'\]"),
    ],
)
def test_a_foreign_manifest_is_refused(folder, change, says):
    manifest = json.loads((folder / "manifest.json").read_text()) | change
    kept = {name: value for name, value in manifest.items() if value is not None}
    (folder / "manifest.json").write_text(json.dumps(kept))
    with pytest.raises(ArtifactError, match=says):
        load_bundle(folder)


@pytest.mark.parametrize("text", ["[]", "{}", "nonsense", '"files"'])
def test_a_manifest_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match="not a model bundle"):
        load_bundle(tmp_path)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="not a model bundle"):
        load_bundle(tmp_path / "nowhere")


def test_a_bundle_of_any_family_that_serves_comes_back(parts, two_tastes, tmp_path):
    """Nested folders, other classes: the manifest vouches for all of their files."""
    users = UserBatch(user_indices=np.arange(-1, 41))
    spectral = SpectralConfig(num_factors=2, device="cpu")
    learned = LearnedPart(num_factors=3, epochs=1, batch_size=64, device="cpu")
    blend = BlendConfig(spectral=spectral, learned=learned, als=AlsPart(num_factors=2))
    for config in (ItemKnnConfig(), blend):
        model = fit_model(two_tastes, config)
        folder = save_bundle(tmp_path / config.family, **(parts | {"model": model}))
        loaded = load_bundle(folder, verify=True)
        assert type(loaded.model) is type(model)
        np.testing.assert_array_equal(loaded.model.score(users), model.score(users))


def test_a_class_of_model_that_cannot_serve_is_an_artifact_error(folder):
    path = folder / "model" / "model.json"
    document = json.loads(path.read_text()) | {"class": "oracles"}
    path.write_text(json.dumps(document))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model/model.json"]["size"] = path.stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="unknown class of model 'oracles'"):
        load_bundle(folder)
