"""The YAML job file: one optional section per stage."""

from dataclasses import dataclass, field

from perso.data.interactions import PrepareSpec
from perso.models.families import ModelConfig
from perso.models.sgd_config import SgdConfig
from perso.segments.spec import SegmentSpec
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
