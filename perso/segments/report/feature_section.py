"""The report's section on the features: how the values of each are spread over the customers."""

from perso.dictionary import VIEWS
from perso.pages.number_text import number, percent
from perso.pages.page import paragraph, picture, section
from perso.pages.table import Cell, Table
from perso.segments.names import display_name
from perso.segments.report.pictures import draw_distributions
from perso.segments.summary import WeekSummary

_FEATURES_SHOWN = (  # what a marketer asks for first; at most 12 are drawn
    "spend",
    "num_orders",
    "average_order_value",
    "recency_days",
    "composite_score",
    "engagement",
    "num_sessions",
    "browsing_depth",
    "cart_abandonment_rate",
    "return_rate",
    "discount_share",
    "category_entropy",
    "mobile_share",
    "tenure_days",
    "monetary",
    "rfm_score",
)
_MOST_FEATURES = 12


def distribution_section(week: WeekSummary) -> str:
    """How the features are spread."""
    features = {f.name: f for view in VIEWS.values() for f in view.features}
    by_name = {
        spread.name: spread
        for spread in week.distributions
        if sum(spread.counts) >= week.min_segment_size
        and sum(count > 0 for count in spread.counts) > 1  # one value for all says nothing
    }
    chosen = [name for name in _FEATURES_SHOWN if name in by_name]
    chosen += [name for name in sorted(by_name) if name not in chosen]
    chosen = chosen[:_MOST_FEATURES]
    if not chosen:
        text = paragraph("No feature has a value yet.")
        return section("distributions", "How the features are spread", text)
    titles = {name: display_name(name.replace("num_", "number_of_")) for name in chosen}
    units = {name: features[name].unit if name in features else "" for name in chosen}
    shown = [(by_name[name], titles[name], units[name]) for name in chosen]
    rows = [
        [
            Cell(text=titles[name], small=features[name].description if name in features else ""),
            Cell(text=units[name]),
            Cell(text=_short_number(by_name[name].median), is_number=True),
            *(
                Cell(text=_share_or_hidden(size, week), is_number=True)
                for size in (by_name[name].num_zeros, by_name[name].num_unknown)
            ),
        ]
        for name in chosen
    ]
    return section(
        "distributions",
        "How the features are spread",
        picture(
            draw_distributions(shown, week.min_segment_size),
            alt="Histograms of " + ", ".join(titles[name].lower() for name in chosen) + ".",
            caption="How to read it: each bar is the share of the customers with a value in its "
            "range; the dark line is the median. The 1 % with the lowest and highest values are "
            f"in the outermost bars. Bars of fewer than {week.min_segment_size} customers are "
            "left out.",
        ),
        Table(
            head=["Feature", "Unit", "Median#", "Exactly zero#", "Unknown#"],
            rows=rows,
            caption="Unknown: of all customers, those without a value, such as the recency of "
            "who never bought.",
        ).html(),
    )


def _share_or_hidden(size: int, week: WeekSummary) -> str:
    if 0 < size < week.min_segment_size:
        return f"<{week.min_segment_size} customers"
    return percent(size / week.num_users if week.num_users else 0.0)


def _short_number(value: float) -> str:
    return number(value, 0 if abs(value) >= 100 else 2)
