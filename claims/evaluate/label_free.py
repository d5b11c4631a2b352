"""How far an order without labels can be trusted: many of our own encoders, ranked without labels and with them."""

from __future__ import annotations

from scipy.stats import spearmanr

from rushlight.data.columns import TEST
from rushlight.data.synthetic import fashion
from rushlight.jobs.claims import members
from rushlight.jobs.claims.run import Claim, Effect
from rushlight.methods.evaluate.label_free.method import BETTER, LabelFree
from rushlight.run.stage import RunContext

PASSES = 15e3
PARTS = {"alignment": -1, "uniformity": -1}
"""Recorded each for itself, beside the signals of the order."""
RECIPES = (
    "barlow-twins(weight=0.0001, batch=64)",
    "barlow-twins(batch=64)",
    "barlow-twins(weight=0.05, batch=64)",
    "barlow-twins(learning_rate=0.0001, batch=64)",
    "simclr(temperature=0.1, batch=64)",
    "simclr(batch=64)",
    "simclr(temperature=2.0, batch=64)",
    "vicreg(batch=64)",
    "vicreg(variance=5.0, batch=64)",
    "moco(batch=64)",
    "dcl(batch=64)",
    "byol(batch=64)",
    "swav(local=0, batch=64)",
    "dino(local=0, batch=64)",
    "msn(focal=0, batch=64)",
)


def run(seed: int) -> dict[str, float]:
    models = {recipe: members.pretrained(recipe, "conv16", seed, PASSES) for recipe in RECIPES}
    start = next(iter(models.values()))[0]
    encoders = {"untrained": start, **{recipe: model for recipe, (_, model) in models.items()}}
    images = fashion.load().fold(TEST).without("class")
    table = LabelFree().judge_all(encoders, images, RunContext(seed=seed)).table("models")
    probes = {name: members.judged(model) for name, model in encoders.items()}
    accuracy = {name: probe["linear"] for name, probe in probes.items()}
    linear = [accuracy[name] for name in table["model"]]

    def correlation(values: list[float], sign: int = 1) -> float:
        return float(spearmanr([sign * value for value in values], linear).statistic)

    chosen = accuracy[table["model"][0]]
    neighbours = [probes[name]["knn"] for name in table["model"]]
    return {
        "order": correlation(table["mean rank"], -1),
        "RankMe": correlation(table["RankMe"]),
        "saved": 2.0 - (max(linear) - chosen),
        **{f"ρ {signal}": correlation(table[signal], sign) for signal, sign in {**BETTER, **PARTS}.items()},
        **{f"ρ within {method}": within(method, table, accuracy) for method in ("barlow-twins", "simclr")},
        "order by neighbours": float(spearmanr([-rank for rank in table["mean rank"]], neighbours).statistic),
        "best probe": max(linear),
        "chosen probe": chosen,
        "models": float(len(linear)),
        **{f"probe {name}": value for name, value in accuracy.items()},
    }


def within(method: str, table: dict[str, list], accuracy: dict[str, float]) -> float:
    """Return the correlation of RankMe and the probe over the runs of one method."""
    runs = [(rank, accuracy[name]) for name, rank in zip(table["model"], table["RankMe"], strict=True)
            if name.startswith(method + "(")]  # fmt: skip
    return float(spearmanr(*zip(*runs, strict=True)).statistic)


CLAIM = Claim(
    id="label-free",
    headline="features whose views align and which spread uniformly are the ones that do well downstream (Wang and "
    "Isola); RankMe orders runs of one method without labels",
    data="16 encoders (conv16 at 28×28) a seed: the untrained one and fifteen that were pretrained by nine methods, "
    "some at several settings, for 15,000 image passes in batches of 64 on 8,000 embedded photos; "
    "signals on 2,000 other photos",
    baseline="chance, which orders them with a correlation of 0",
    metric="Spearman's correlation, over the 16 encoders, of the order without labels with the accuracy of a linear "
    "probe (2,000 labels, 2,000 test photos); and what choosing the first one costs",
    effects=(
        Effect("order", "the order without labels correlates with the probe's by at least 0.5", margin=0.5, unit="ρ"),
        Effect("RankMe", "RankMe of the features alone correlates with it, across methods", unit="ρ"),
        Effect("saved", "its first choice costs at most two points (2 − regret is above 0)"),
    ),
    seeds=3,
    run=run,
    note="Before the run, batches of 64 replaced those of 256, for as many steps as RankMe's study has. View retrieval "
    "carries the order (ρ from 0.62 to 0.77 alone); RankMe of the features says little across methods, and within "
    "Barlow Twins (four runs) and SimCLR (three) it ran against the probe. The order by neighbours agrees as well as "
    "that by the linear probe.",
)
