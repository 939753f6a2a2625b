"""The YAML job file: one optional section per stage."""

from dataclasses import dataclass, field

from perso.data.interactions import PrepareSpec
from perso.segments.rfm import RfmSpec
from perso.tuning import SearchSpec


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What a job prepares, segments and searches; a stage takes only its own section."""

    prepare: PrepareSpec = field(default_factory=PrepareSpec)
    """Input and interactions."""
    segments: RfmSpec = field(default_factory=RfmSpec)
    """Customer segments."""
    search: SearchSpec = field(default_factory=SearchSpec)
    """The grid, what every trial is measured by and what decides."""
