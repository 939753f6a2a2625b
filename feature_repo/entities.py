"""Who has features."""

from feast import Entity, Project, ValueType

from perso.dictionary import ITEM, OWNER, USER

project = Project(
    name="perso",
    description="Shop personalization: customer segments for the recommender and other teams.",
    owner=OWNER,
    tags={"domain": "personalization"},
)

user = Entity(
    name="user",
    join_keys=[USER],
    value_type=ValueType.STRING,
    description="A customer, by the shop's own id.",
    owner=OWNER,
    tags={"pii": "pseudonymous"},
)

item = Entity(
    name="item",
    join_keys=[ITEM],
    value_type=ValueType.STRING,
    description="What the shop sells, by the shop's own id.",
    owner=OWNER,
    tags={"pii": "none"},
)

ENTITIES = {USER: user, ITEM: item}
