"""The ``segments:`` section of a job file: everything that segmentation leaves to the shop."""

from dataclasses import dataclass, field

from perso.segments.cluster_config import ClusterSpec
from perso.segments.composite import CompositeSpec
from perso.segments.measure_spec import MeasureSpec
from perso.segments.rfm import RfmSpec
from perso.segments.summary import MonitorSpec


@dataclass(frozen=True, kw_only=True)
class SegmentSpec:
    """How customers are measured, scored, grouped and watched."""

    step_weeks: int = 1
    """Weeks from one as-of instant to the next of a backfill."""
    measures: MeasureSpec = field(default_factory=MeasureSpec)
    """The window, sessions, affinities and engagement."""
    rfm: RfmSpec = field(default_factory=RfmSpec)
    """Scales, tiers and the named segments."""
    composite: CompositeSpec = field(default_factory=CompositeSpec)
    """Dimensions and weights of the composite score."""
    clusters: ClusterSpec = field(default_factory=ClusterSpec)
    """Which groups of like customers are looked for, and how they are named."""
    min_segment_size: int = 10
    """A segment or cluster of fewer customers leaves perso without its name (k-anonymity, Sweeney
    2002): its customers are ``other``."""
    monitor: MonitorSpec = field(default_factory=MonitorSpec)
    """When a change from week to week is an alert."""

    def __post_init__(self) -> None:
        for name in ("step_weeks", "min_segment_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
