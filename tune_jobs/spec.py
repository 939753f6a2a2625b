"""The YAML job file: one optional section per stage."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from perso.data.interactions import PrepareSpec
from perso.models.families import ModelConfig
from perso.models.sgd_config import SgdConfig
from perso.segments.spec import SegmentSpec
from perso.spec import load_spec, parse_spec, spec_to_dict
from perso.tuning.spec import SearchSpec
from tune_jobs.evaluate import EvaluateSpec


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What a job prepares, segments and searches; a stage takes only its own section."""

    prepare: PrepareSpec = field(default_factory=PrepareSpec)
    """Input and interactions."""
    segments: SegmentSpec = field(default_factory=SegmentSpec)
    """Customer segments."""
    search: SearchSpec = field(default_factory=SearchSpec)
    """The grid, what every trial is measured by and what decides."""
    model: ModelConfig = field(default_factory=SgdConfig)
    """One model, for `perso evaluate`."""
    evaluate: EvaluateSpec = field(default_factory=EvaluateSpec)
    """How `perso evaluate` measures it."""


def load_job(
    spec: Path | str | None,
    *,
    source: str | None = None,
    path: str | None = None,
    catalog: str | None = None,
) -> JobSpec:
    """The job of a file (or the defaults) with the input that a command line names.

    Raises:
        InputError: If the file cannot be read or says something wrong.
    """
    job = load_spec(JobSpec, spec) if spec else JobSpec()
    given = {"source": source, "path": path, "catalog": catalog}
    changes = {name: value for name, value in given.items() if value is not None}
    if path and source is None and job.prepare.source == "synthetic":
        changes["source"] = "events"
    if not changes:
        return job
    merged = spec_to_dict(job.prepare) | changes
    return replace(job, prepare=parse_spec(type(job.prepare), merged, origin="command line"))
