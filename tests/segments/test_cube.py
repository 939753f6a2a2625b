import numpy as np
import pytest

from perso.segments.cube import BROWSERS, DEFAULT_BOXES, SHAPE, SegmentBox, SegmentCube


def test_every_cell_of_the_default_cube_has_exactly_one_name():
    cube = SegmentCube(DEFAULT_BOXES)
    cells = np.stack(np.unravel_index(np.arange(np.prod(SHAPE)), SHAPE)) + 1
    codes = cube.codes(*cells)
    assert len(codes) == 1600
    assert {cube.names[code] for code in codes} == {*cube.names} - {BROWSERS}
    for cell, code in zip(cells.T.tolist(), codes, strict=True):
        holders = [
            box.name
            for box in DEFAULT_BOXES
            if all(
                low <= score <= high
                for score, (low, high) in zip(
                    cell, (box.recency, box.frequency, box.monetary), strict=True
                )
            )
        ]
        assert holders == [cube.names[code]]


@pytest.mark.parametrize(
    ("scores", "name"),
    [
        ((100, 4, 4), "champions"),
        ((84, 3, 3), "champions"),
        ((84, 3, 2), "loyal"),
        ((70, 4, 1), "loyal"),
        ((90, 2, 4), "potential_loyalists"),
        ((99, 1, 4), "new"),
        ((70, 1, 1), "promising"),
        ((60, 2, 1), "need_attention"),
        ((60, 1, 4), "about_to_sleep"),
        ((30, 1, 3), "at_risk"),
        ((30, 4, 1), "hibernating"),
        ((2, 1, 4), "cant_lose_them"),
        ((1, 1, 4), "cant_lose_them"),
        ((1, 1, 3), "lost"),
        ((0, 0, 0), "browsers"),
    ],
)
def test_the_well_known_segments_are_where_marketing_expects_them(scores, name):
    assert SegmentCube(DEFAULT_BOXES).name_of(*scores) == name


def test_a_gap_is_named_with_its_first_cell():
    boxes = [
        SegmentBox(name="all_but_one", recency=(2, 100)),
        SegmentBox(name="rest", recency=(1, 1), monetary=(1, 3)),
    ]
    with pytest.raises(ValueError, match=r"recency 1, frequency 1, monetary 4, and 3 more of 1600"):
        SegmentCube(boxes)


def test_an_overlap_is_named_with_both_segments():
    boxes = [SegmentBox(name="all"), SegmentBox(name="best", recency=(90, 100), frequency=(4, 4))]
    with pytest.raises(
        ValueError, match="'all' and 'best' overlap at recency 90, frequency 4, monetary 1"
    ):
        SegmentCube(boxes)


@pytest.mark.parametrize(
    "bad", [{"recency": (0, 100)}, {"frequency": (3, 2)}, {"monetary": (1, 5)}]
)
def test_a_box_outside_the_cube_is_refused(bad):
    with pytest.raises(ValueError, match="two rising numbers"):
        SegmentBox(name="odd", **bad)


@pytest.mark.parametrize("name", ["browsers", "other"])
def test_reserved_names_are_refused(name):
    with pytest.raises(ValueError, match="is taken"):
        SegmentBox(name=name)


@pytest.mark.parametrize("scores", [(0, 1, 1), (101, 1, 1), (50, 0, 4), (1, 1, -1)])
def test_scores_outside_the_cube_are_refused(scores):
    with pytest.raises(ValueError, match="no cell"):
        SegmentCube(DEFAULT_BOXES).name_of(*scores)
