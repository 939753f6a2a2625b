"""Does a model learn anything from segments? The hybrid with and without them, on a real shop.

Reads a prepared dataset of ``--root`` and what ``recommender_v1`` says of its customers as of the
end of validation (written unless it is there), trains the hybrid on everything before the test
period with nothing of it, with the segment, and with segment and attributes, over several seeds,
and prints metrics on the test period: overall with the paired 95 % interval of the difference to
the bare model, and per segment. Run: ``python tests/benchmarks/bench_segment_features.py --root
DIR [--seeds 3]``; it looks at the test period, so nothing may be chosen by it.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from perso.distributed.cluster import connect
from perso.distributed.interactions import latest
from perso.evaluation.comparison import compare
from perso.evaluation.per_user import measure_per_user
from perso.evaluation.report import evaluate
from perso.features.customers import read_customers
from perso.features.store import open_features
from perso.models.families import fit_model
from perso.models.hybrid_config import HybridConfig
from perso.models.side_data import SideData
from perso.segments.spec import SegmentSpec
from perso.workspace import Workspace
from tune_jobs import segment

METRICS = ("recall@20", "ndcg@20")
BARE = "without"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    workspace = Workspace.open(given.root)
    data = latest(workspace)
    as_of = data.split_end("validation")
    features = open_features(workspace)
    features.apply()
    if as_of not in features.written():
        connect()
        segment.run(SegmentSpec(), data, workspace, as_ofs=[as_of], sync=False)
    segments, attributes = read_customers(features, data.users, as_of=as_of)
    known, test = data.interactions("train", "validation"), data.interactions("test")
    catalog = data.catalog()
    sides = {
        BARE: SideData(item_features=catalog),
        "segment": SideData(segments=segments, item_features=catalog),
        "segment + attributes": SideData(
            segments=segments, user_features=attributes, item_features=catalog
        ),
    }
    differences: dict[str, list[tuple[float, float, float]]] = {}
    slices: dict[str, dict[str, list[float]]] = {}
    overall: dict[str, list[list[float]]] = {}
    sizes: dict[str, int] = {}
    for seed in range(given.seeds):
        config = replace(HybridConfig(), seed=seed)
        models = {name: fit_model(known, config, side) for name, side in sides.items()}
        for name, model in models.items():
            report = evaluate(
                model, train=known, held_out=test, ks=(20,), segments=segments, catalog=catalog
            )
            overall.setdefault(name, []).append([report.overall[m] for m in METRICS])
            for group, metrics in report.per_segment.items():
                slices.setdefault(group, {}).setdefault(name, []).append(metrics["ndcg@20"])
            sizes |= report.num_users_by_segment
            if name != BARE:
                ours, bare = (
                    measure_per_user(
                        measured, train=known, held_out=test, ks=(20,), segments=segments
                    )
                    for measured in (model, models[BARE])
                )
                found = compare(ours, bare, "ndcg@20")
                differences.setdefault(name, []).append((found.mean, found.low, found.high))
    print("| model | Recall@20 | NDCG@20 | NDCG@20 less the bare model's, by seed |")
    print("|---|---|---|---|")
    for name, values in overall.items():
        recall, ndcg = np.mean(values, axis=0)
        told = "; ".join(
            f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
            for mean, low, high in differences.get(name, [])
        )
        print(f"| {name} | {recall:.4f} | {ndcg:.4f} | {told} |")
    print(f"\n| NDCG@20 of | users | {' | '.join(sides)} |")
    print(f"|---|---|{'---|' * len(sides)}")
    for group in sorted(slices, key=lambda group: -sizes.get(group, 0)):
        means = [f"{np.mean(slices[group][name]):.4f}" for name in sides]
        print(f"| {group} | {sizes.get(group, 0)} | {' | '.join(means)} |")


if __name__ == "__main__":
    main()
