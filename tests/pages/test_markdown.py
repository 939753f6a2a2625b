"""Markdown: whatever a text holds, it stays text, and tables stay tables."""

import re

from hypothesis import given
from hypothesis import strategies as st

from perso.pages.markdown import escape_markdown
from perso.pages.parts import Code
from perso.pages.table import Cell, Table


@given(st.text(alphabet='ab_|*`[]<>&\\~\n "'))
def test_a_cell_holds_no_bare_pipe_line_end_or_markup(text: str) -> None:
    escaped = escape_markdown(text)
    assert "\n" not in escaped
    assert not re.search(r"[<>]", escaped)
    for mark in re.finditer(r"[|*`\[\]~]", escaped):
        before = escaped[: mark.start()]
        backslashes = len(before) - len(before.rstrip("\\"))
        assert backslashes % 2 == 1


def test_names_of_settings_stay_as_they_are() -> None:
    assert escape_markdown("learned.num_factors 0.1") == "learned.num_factors 0.1"


def test_a_table_has_as_many_cells_in_every_line_and_marks_rows_in_bold() -> None:
    table = Table(
        head=["Model", "ndcg@20#"],
        rows=[
            [Cell(text="a|b", small="x|y"), Cell(text="0.1", is_number=True)],
            [Cell(text="won"), Cell(text="0.2", is_number=True)],
        ],
        caption="Best first.",
        marked=frozenset([1]),
    )
    lines = table.markdown().splitlines()
    assert lines == [
        "Best first.",
        "",
        "| Model | ndcg@20 |",
        "| :--- | ---: |",
        r"| a\|b<br><sub>x\|y</sub> | 0.1 |",
        "| **won** | **0.2** |",
    ]


def test_a_fence_is_longer_than_any_in_its_text() -> None:
    block = Code(text="```\na\n", language="yaml", summary="s").markdown()
    assert "\n````yaml\n```\na\n````\n" in block
