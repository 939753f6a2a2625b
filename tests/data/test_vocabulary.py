import pyarrow as pa
import pytest

from perso.data.vocabulary import Vocabulary
from perso.errors import ArtifactError


def test_ids_and_rows_are_each_others_inverse(tmp_path):
    path = tmp_path / "items.arrow"
    Vocabulary(pa.array(["b", "a", "ü"])).save(path)
    items = Vocabulary.load(path)
    assert [items.id_of(i) for i in range(3)] == ["b", "a", "ü"]
    assert items.indices_of(["ü", "zz", "b"]).tolist() == [2, -1, 0]


def test_an_empty_vocabulary_is_legal(tmp_path):
    path = tmp_path / "items.arrow"
    Vocabulary(pa.array([], pa.string())).save(path)
    assert len(Vocabulary.load(path)) == 0


def test_concatenation_keeps_the_order_of_the_parts(tmp_path):
    parts = [tmp_path / name for name in ("x", "y", "z")]
    for part, ids in zip(parts, (["c", "d"], [], ["a"]), strict=True):
        Vocabulary(pa.array(ids, pa.string())).save(part)
    Vocabulary.concatenate(tmp_path / "all", parts=parts)
    assert Vocabulary.load(tmp_path / "all").ids.to_pylist() == ["c", "d", "a"]


def test_a_foreign_file_is_refused(tmp_path):
    (tmp_path / "items.arrow").write_text("not arrow")
    with pytest.raises(ArtifactError, match=r"items\.arrow is not a vocabulary"):
        Vocabulary.load(tmp_path / "items.arrow")
