"""Who may rely on what: a released service keeps its fields; a change gets a new version."""

from entities import OWNER
from feast import FeatureService
from feature_views import user_rfm

user_segments_v1 = FeatureService(
    name="user_segments_v1",
    features=[user_rfm],
    description="Customer segments for other teams: e-mail, ads, reporting.",
    owner=OWNER,
    tags={"status": "stable", "audience": "all teams"},
)

recommender_v1 = FeatureService(
    name="recommender_v1",
    features=[user_rfm],
    description="What the recommender reads, in training and in serving alike.",
    owner=OWNER,
    tags={"status": "stable", "audience": "perso"},
)
