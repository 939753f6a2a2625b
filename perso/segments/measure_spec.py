"""How customers are measured: the choices that a shop may make differently."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class MeasureSpec:
    """How customers are measured."""

    window_weeks: int = 26
    """Habits are counted over this many weeks before the instant."""
    session_gap_minutes: int = 30
    """A pause that ends a visit where events carry no session id (the field's usual half hour)."""
    event_weights: dict[str, float] = field(
        default_factory=lambda: {
            "view_item": 1.0,
            "add_to_cart": 3.0,
            "purchase": 5.0,
            "rate_item": 2.0,
        }
    )
    """How much an event says about liking its item; other types say nothing."""
    num_affinities: int = 5
    """Length of the lists of categories, brands and tags."""
    mobile_devices: tuple[str, ...] = ("mobile", "phone", "smartphone")
    """Values of ``device`` that are a phone."""
    depth_scale: float = 5.0
    """Events in a visit at which engagement by depth is 63 %."""
    dwell_scale_s: float = 60.0
    """Mean dwell at which engagement by dwell is 63 %."""
    engagement_cuts: tuple[float, float] = (0.33, 0.66)
    """Engagement from which a customer is medium, and high."""
    attributes: str | None = None
    """Customer file: user_id and any of age_band, age, birth_year, gender, location."""

    def __post_init__(self) -> None:
        positive = ("window_weeks", "session_gap_minutes", "num_affinities")
        for name in (*positive, "depth_scale", "dwell_scale_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number above 0")
        if bad := {k: w for k, w in self.event_weights.items() if not 0 <= w < float("inf")}:
            raise ValueError(f"event_weights has {bad}; give weights of 0 or more")
        medium, high = self.engagement_cuts
        if not 0 < medium < high < 1:
            raise ValueError(
                f"engagement_cuts is {self.engagement_cuts}; give two rising numbers in 0 to 1"
            )
