"""Who may rely on what: a released service keeps its fields; a change gets a new version."""

from feast import FeatureService
from feature_views import VIEWS, user_recent_events
from on_demand_views import user_event_age

import perso.dictionary as known


def _service(service: known.Service) -> FeatureService:
    return FeatureService(
        name=service.name,
        features=[
            VIEWS[view] if columns is None else VIEWS[view][list(columns)]
            for view, columns in service.columns
        ],
        description=service.description,
        owner=known.OWNER,
        tags={
            "status": "stable",
            "audience": service.audience,
            "version": service.name.rsplit("_v", 1)[1],
        },
    )


user_segments_v1 = _service(known.USER_SEGMENTS_V1)
recommender_v1 = _service(known.RECOMMENDER_V1)
items_v1 = _service(known.ITEMS_V1)

# A service of its own: inside recommender_v1 every reader of that, training included, would have
# to send asked_at or get an error.
recommender_context_v1 = FeatureService(
    name="recommender_context_v1",
    features=[user_recent_events, user_event_age],
    description="Recent events and their age at the moment of the request; send asked_at.",
    owner=known.OWNER,
    tags={"status": "stable", "audience": "perso", "version": "1"},
)
