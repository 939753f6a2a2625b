"""What the metrics are called on the page, for readers who have never met them."""

from typing import Final

_MEANING: Final = {
    "hit_rate": "share of shoppers with a hit among {k} recommendations",
    "recall": "share of what shoppers went on to choose that {k} recommendations held",
    "ndcg": "how high among {k} recommendations the hits stand: 1 is a perfect order",
    "map": "how many of {k} recommendations are hits, the first counting most",
    "mrr": "how high among {k} recommendations the first hit stands",
    "precision": "share of {k} recommendations that are hits",
    "coverage": "share of the catalogue that appears in any list of {k}",
    "gini": "how unequally items appear in lists of {k}; lower is better",
    "novelty": "how little known the items in lists of {k} are, in bits",
    "serendipity": "share of hits among {k} that popularity would not have found",
    "popularity_lift": "how much more popular lists of {k} are than shoppers' own; lower is better",
    "intra_list_diversity": "how unlike the items of one list of {k} are",
    "calibration": "how far the categories of lists of {k} are from shoppers' own; lower is better",
    "rmse": "root of the mean squared error of predicted numbers; lower is better",
    "mae": "mean absolute error of predicted numbers; lower is better",
}


def meaning(metric: str) -> str:
    """A metric in plain words; empty for an unknown one.

    Example:
        >>> meaning("hit_rate@20")
        'share of shoppers with a hit among 20 recommendations'
    """
    base, _, k = metric.partition("@")
    return _MEANING.get(base, "").format(k=k)


def duration(seconds: float) -> str:
    """A time span in words of two units at most.

    Example:
        >>> duration(0.42), duration(75), duration(5400), duration(200000)
        ('0.4 s', '1 min 15 s', '1 h 30 min', '2 d 7 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    for size, unit, small, small_unit in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit}" + (f" {rest} {small_unit}" if rest else "")
    raise AssertionError("a minute or more has a unit")


def memory(mebibytes: float) -> str:
    """Memory with its unit.

    Example:
        >>> memory(512), memory(2560)
        ('512 MiB', '2.5 GiB')
    """
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"
