"""Who has features."""

from feast import Entity, Project, ValueType

OWNER = "perso"

project = Project(
    name="perso",
    description="Shop personalization: customer segments for the recommender and other teams.",
    owner=OWNER,
    tags={"domain": "personalization"},
)

user = Entity(
    name="user",
    join_keys=["user_id"],
    value_type=ValueType.STRING,
    description="A customer, by the shop's own id.",
    owner=OWNER,
    tags={"pii": "pseudonymous"},
)
