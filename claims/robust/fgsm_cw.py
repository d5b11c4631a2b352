"""Does a distilled student withstand FGSM, and fall to Carlini–Wagner, because it only hides its gradient?"""

from __future__ import annotations

from dataclasses import replace

import torch

from rushlight.data.columns import TEST, TRAIN
from rushlight.data.synthetic import fashion
from rushlight.jobs.claims.run import Claim, Effect
from rushlight.methods.baseline.supervised import Supervised
from rushlight.methods.robust.fgsm_cw.method import CarliniWagner, DefensiveDistillation, FgsmCw
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.hardware import precision
from rushlight.run.model import Model, ModelInfo
from rushlight.run.stage import RunContext

BUDGET = Budget(passes=30_000.0)
EPS = 0.1


def run(seed: int) -> dict[str, float]:
    data = fashion.load()
    train, test = data.fold(TRAIN).select(torch.arange(10_000)), data.fold(TEST)
    ctx = RunContext(seed=seed, precision=precision("cpu"))
    models = {}
    for name, stage in (("plain", Supervised()), ("distilled", DefensiveDistillation(temperature=100.0))):
        encoder = encoders.create("conv16", image_size=28, seed=seed)
        start = Model(encoder, {}, ModelInfo.of(train.info, (28, 28), "class"))
        models[name] = stage.run(train, start, replace(ctx, budget=BUDGET)).model
    attack = CarliniWagner(c=1.0, steps=200, searches=3)
    judge = FgsmCw(images=100, strengths=(EPS,), carlini_wagner=attack)
    numbers = judge.audit(models, test, ctx).numbers
    of = {
        name: {key.removeprefix(f"{name}: "): v for key, v in numbers.items() if key.startswith(name)}
        for name in models
    }
    plain, distilled = of["plain"], of["distilled"]
    unmasked = max(distilled["FGSM success on z/T"], distilled["FGSM success in float64"])
    return {
        "withstands FGSM": 100 * (plain["FGSM success"] - distilled["FGSM success"]),
        "falls to CW": 100 * (distilled["Carlini–Wagner success"] - distilled["FGSM success"]),
        "unmasked": 100 * (unmasked - distilled["FGSM success"]),
        **{f"{name} {key}": value for name, found in of.items() for key, value in found.items() if value == value},
    }


CLAIM = Claim(
    id="fgsm-cw",
    headline="CIFAR-10: the distilled student withstands FGSM but not Carlini–Wagner",
    data="10,000 embedded photos (28×28) to train on, 100 of the 2,000 test photos to attack; conv16",
    baseline="the same network trained plainly on the same labels, at the same 30,000 image passes in total",
    metric="share of rightly classified photos fooled by FGSM at 0.1 (L∞) and Carlini–Wagner (L2, 3 × 200 steps)",
    effects=(
        Effect("withstands FGSM", "FGSM fools the distilled network less often than the plain one"),
        Effect("falls to CW", "Carlini–Wagner fools the distilled network more often than FGSM does"),
        Effect("unmasked", "in float64 or on z/T, FGSM fools the distilled network more often: it hid its gradient"),
    ),
    seeds=4,
    run=run,
)
