"""Features that only the moment of the request completes."""

from data_sources import request_time
from feast import Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64
from feature_views import user_recent_events

from perso.dictionary import OWNER


@on_demand_feature_view(
    sources=[user_recent_events, request_time],
    # Feast infers name and type from a trial run and refuses a field that says more, such as a
    # description; a Python number is Float64.
    schema=[Field(name="last_event_age_s", dtype=Float64)],
    mode="python",
    description="Seconds from the last event to the request (asked_at); null: no event known.",
    owner=OWNER,
    tags={"status": "stable", "entity": "user_id", "source": "request"},
)
def user_event_age(inputs: dict[str, list]) -> dict[str, list]:
    """Feast stores this function's code in the registry: it may use nothing from outside."""

    def seconds(instant: object) -> float | None:
        # A missing time of pandas differs from itself.
        if instant is None or instant != instant:  # noqa: PLR0124
            return None
        return float(instant.timestamp() if hasattr(instant, "timestamp") else instant)

    ages = []
    for last, asked in zip(inputs["last_event_at"], inputs["asked_at"], strict=True):
        then, now = seconds(last), seconds(asked)
        ages.append(None if then is None or now is None else now - then)
    return {"last_event_age_s": ages}
