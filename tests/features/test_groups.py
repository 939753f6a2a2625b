import pyarrow as pa

from perso.data.vocabulary import Vocabulary
from perso.features.groups import user_groups


def test_groups_follow_the_vocabulary_and_leave_out_the_unknown(features, rfm_rows, day):
    features.write_rfm(rfm_rows(day(1), ann="new", bob="lost", cem="new"))
    users = Vocabulary(pa.array(["cem", "stranger", "bob", "ann"]))
    groups = user_groups(features, users, as_of=day(1))
    assert groups.names == ("lost", "new")
    assert groups.codes_U.tolist() == [1, -1, 0, 1]
