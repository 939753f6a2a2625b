"""The section that lets somebody else run the same search: data, code, periods and spec."""

from typing import Final

import yaml

from perso.pages.parts import Code, Heading, Part, Section
from perso.pages.table import Cell, Table
from perso.spec import spec_to_dict
from perso.tuning.report.scoreboard import Scoreboard

_WORDS: Final = {
    "data_key": ("Dataset", "key of the prepared data"),
    "data_hash": ("Contents", "hash of the prepared files"),
    "git_commit": ("Code", "git commit"),
    "train": ("Train", "what the trials learned from"),
    "validation": ("Validation", "what chose the winner"),
    "test": ("Test", "looked at once, by the winner and those it is compared with"),
}


def lineage_section(board: Scoreboard) -> Section:
    """What the search was run on, and its spec."""
    result = board.result
    facts = {**result.lineage, **result.periods}
    known = [name for name in _WORDS if name in facts]
    rows = [[Cell(text="Version"), Cell(text=result.version), Cell(text="in the registry")]]
    for name in [*known, *sorted(facts.keys() - _WORDS.keys())]:
        title, words = _WORDS.get(name, (name, ""))
        rows.append([Cell(text=title), Cell(text=facts[name], css="code"), Cell(text=words)])
    parts: list[Part] = [
        Table(head=["What", "Value", "Meaning"], rows=rows, caption="", css="facts"),
        Heading(text="The search, to run it again"),
        Code(
            text=spec_yaml(board),
            language="yaml",
            summary="The file of the search, all defaults written out",
        ),
    ]
    return Section(anchor="lineage", name="Data & lineage", title="Data and lineage", parts=parts)


def spec_yaml(board: Scoreboard) -> str:
    """The resolved spec as a job file; what was prepared is not in it."""
    document = spec_to_dict(board.spec)
    # A distribution is one key of four, a constraint one or two ends: the others say nothing.
    for place in (*(grid["sample"] for grid in document["grids"]), document["constraints"]):
        for name, given in place.items():
            place[name] = {key: value for key, value in given.items() if value is not None}
    text: str = yaml.safe_dump(
        {"search": document}, sort_keys=False, allow_unicode=True, width=88, default_flow_style=None
    )
    return text
