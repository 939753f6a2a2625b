"""Options that several commands share, and the job that they add up to."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perso.errors import InputError

if TYPE_CHECKING:
    from tune_jobs.spec import JobSpec

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


def load_job(
    spec: Path | None,
    *,
    source: str | None = None,
    path: str | None = None,
    catalog: str | None = None,
) -> "JobSpec":
    """The job of a file (or the defaults) with the input that the flags name."""
    from perso.spec import load_spec, parse_spec, spec_to_dict
    from tune_jobs.spec import JobSpec

    job = load_spec(JobSpec, spec) if spec else JobSpec()
    given = {"source": source, "path": path, "catalog": catalog}
    changes = {name: value for name, value in given.items() if value is not None}
    if path and source is None and job.prepare.source == "synthetic":
        changes["source"] = "events"
    if not changes:
        return job
    merged = spec_to_dict(job.prepare) | changes
    return replace(job, prepare=parse_spec(type(job.prepare), merged, origin="command line"))


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
