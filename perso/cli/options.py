"""Options that several commands share."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from perso.errors import InputError

Root = Annotated[
    Path | None,
    typer.Option(help="Folder of datasets, features, models and events. [$PERSO_ROOT, or .perso]"),
]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster to use. [$RAY_ADDRESS, or a private one on this machine]"),
]
Spec = Annotated[
    Path | None,
    typer.Option(help="YAML job file: prepare, segments, search, model, evaluate."),
]
FixedSplitFile = Annotated[
    Path | None,
    typer.Option(help="Table that says which rows are train and test, as in `perso evaluate`."),
]
Json = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
Source = Annotated[
    str | None,
    typer.Option(help="Layout of the input: synthetic, events, online-retail or movielens."),
]
InputPath = Annotated[str | None, typer.Option(help="Input file, folder or URI.")]
Catalog = Annotated[str | None, typer.Option(help="Catalogue file, where the source brings none.")]


def in_utc(instant: datetime) -> datetime:
    """An instant of the command line; without a zone it is UTC."""
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def weeks(text: str) -> int:
    """A number of weeks as ``26w`` or ``26``.

    Raises:
        InputError: If it is none.

    Example:
        >>> weeks("26w"), weeks("4")
        (26, 4)
    """
    if not (found := re.fullmatch(r"([1-9]\d{0,3})w?", text.strip())):
        raise InputError(f"{text!r} is no number of weeks; give one such as 26w")
    return int(found[1])
