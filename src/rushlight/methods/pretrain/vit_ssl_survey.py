"""The survey of self-supervised learning for vision transformers: one taxonomy, and one comparison of its members.

A card's `tags` say where a method stands, first its family, then its pretext task; `taxonomy()` lists all of them. The
survey trains nothing; the judge below does: members of several families start from the same encoder, see the same
images without labels and spend the same budget, and are then measured alike, beside the encoder they started from.

Khan et al., 2024, arXiv:2408.17059.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rushlight.core.arguments import Count, Positive, settings
from rushlight.core.card import Card, Needs, known
from rushlight.core.catalogue import cards
from rushlight.core.findings import Findings, Kind, Measure, Table
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.data.edit import hide
from rushlight.data.edit.split import hold_out
from rushlight.measure import knn, linear, spectrum
from rushlight.measure.features import pooled
from rushlight.run.budget import Budget
from rushlight.run.context import Progress, RunContext
from rushlight.run.evaluate import evaluate
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import Judge

MEMBERS = ("moco-v3", "dino", "mae", "simmim", "ibot")


@dataclass(frozen=True)
class Family:
    """One branch of the taxonomy.

    Attributes:
        name: the first of a card's `tags`.
        idea: how it learns, in a sentence.
        strong, weak: what it is good at, and what it pays for it, as the survey has it.
        questions: what is open.
    """

    name: str
    idea: str
    strong: str
    weak: str
    questions: str


FAMILIES = (
    Family(
        "contrastive",
        "views of one image are pulled together, and pushed from other images",
        "features that tell objects apart without a head",
        "needs many negatives or a memory bank, and views whose differences mean nothing",
        "false negatives: two images of one thing are pushed apart",
    ),
    Family(
        "self-distillation",
        "a student predicts a slow teacher's answer to another view; no negatives",
        "the best features for nearest neighbours; attention that finds objects",
        "keeps from collapse only by centring, sharpening or a predictor; many crops",
        "why it does not collapse",
    ),
    Family(
        "clustering",
        "views of one image must be assigned to the same of a set of prototypes",
        "compares with groups, not with single images, so small batches do",
        "the number of groups and their equal sizes are assumed",
        "long-tailed data, whose groups are not equal",
    ),
    Family(
        "redundancy reduction",
        "views agree in every dimension, and dimensions do not repeat each other",
        "no negatives, no teacher, no tricks",
        "very wide projectors",
        "how its weight should follow the width",
    ),
    Family(
        "generative",
        "most of the image is hidden, and its pixels are rebuilt from the rest",
        "cheap (an encoder may leave out what is hidden); strong when fine-tuned; hardly any augmentation",
        "its frozen features need a head: weak for nearest neighbours",
        "what to rebuild: pixels, features or tokens",
    ),
    Family(
        "hybrid",
        "hidden tokens are predicted and views agree, in one loss",
        "good when frozen and when fine-tuned, and for dense tasks",
        "costs both",
        "how to weigh the parts",
    ),
)


def taxonomy() -> dict[str, list[str]]:
    """Return the taxonomy: each family with its idea, its methods in the catalogue and their pretext tasks."""
    rows: dict[str, list[str]] = {key: [] for key in ("family", "idea", "methods", "strong", "weak", "open")}
    for family in FAMILIES:
        members = [card for card in cards().values() if family.name in card.tags]
        rows["family"].append(family.name)
        rows["idea"].append(family.idea)
        rows["methods"].append("; ".join(f"{card.id} ({', '.join(card.tags[1:])})" for card in members))
        rows["strong"].append(family.strong)
        rows["weak"].append(family.weak)
        rows["open"].append(family.questions)
    return rows


@settings
class VitSslSurvey(Judge):
    """Members of every family of self-supervised learning, at an equal budget, on the data at hand."""

    audits = False
    card: ClassVar = Card(
        id="vit-ssl-survey",
        title="A Survey of the Self Supervised Learning Mechanisms for Vision Transformers",
        paper="arXiv:2408.17059",
        family="pretrain",
        role="judge",
        needs=Needs("image", known("class")),
        gives="a table of self-supervised methods on your images: neighbours, probe, few labels, rank, time",
        says="joint embedding gives the better frozen features, masked modelling the better start for fine-tuning; "
        "the survey itself trains nothing",
    )

    members: Sequence[str] = MEMBERS
    """Recipes without labels, e.g. `["dino", "mae(ratio=0.6)"]`."""
    budget: str = "40k"
    """Of each member's pretraining."""
    labels: Count = 50
    """A class for fine-tuning; classes with fewer known labels keep what they have."""
    fine_tuning: str = "10k"
    """The budget of each fine-tuning."""
    neighbours: Count = 20
    """That vote."""
    temperature: Positive = 0.07
    """Of their votes."""

    def __post_init__(self) -> None:
        self.recipes = [Recipe.parse(member) for member in self.members]

    @staticmethod
    def taxonomy() -> dict[str, list[str]]:
        """Return each family with its methods in the catalogue (see `taxonomy`)."""
        return taxonomy()

    def judge(self, model: Model, data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        """Pretrain each member from the model's encoder, without a label; then run the same tests on all of them.

        The known labels are divided into those that probes learn from and those they are scored on (the test
        fold, or a quarter held out).

        Raises:
            UserError: a member does not fit the encoder.
        """
        held = data if bool(data.fold(TEST).known("class").any()) else hold_out(data, 0.25, ctx.seed, "class")
        train, test = held.fold(TRAIN), held.fold(TEST)
        test = test.select(test.known("class"))
        runs = {"untrained": (model, 0.0, 0.0)}
        for number, member in enumerate(self.recipes):
            if ctx.on_progress is not None:
                ctx.on_progress(Progress(str(member), number / len(self.recipes)))
            trained = member.run(train.hide(), model, _bare(ctx, Budget.parse(self.budget)))
            runs[str(member)] = (trained.model, trained.spent.passes, trained.spent.seconds)
        rows = [self._row(name, *run, train, test, ctx) for name, run in runs.items()]
        kinds: dict[str, Kind] = dict.fromkeys(ASKED[:3], "share")
        measured = [
            Measure(f"{row['member']}: {what}", float(row[what]), kind=kinds.get(what, "number"))
            for row in rows for what in ASKED
        ]  # fmt: skip
        tables = (Table.of_rows("members", rows, kinds=kinds), Table.of("taxonomy", taxonomy()))
        return Findings("vit-ssl-survey", tuple(measured), tables, notes=_notes(rows))

    def _row(
        self, name: str, model: Model, passes: float, seconds: float, train: Dataset, test: Dataset, ctx: RunContext
    ) -> dict[str, str | float]:
        seen = train.select(train.known("class"))
        bank, asked = (pooled(model, part) for part in (seen, test))
        labels, true = seen["class"], test["class"]
        return {
            "member": name,
            "neighbours": knn.accuracy(bank, labels, asked, true, k=self.neighbours, temperature=self.temperature),
            "linear": linear.accuracy(bank, labels, asked, true),
            "fine-tuned": self._fine_tuned(model, train, test, ctx),
            "rank": float(spectrum.effective_rank(spectrum.singular_values(asked))),
            "passes": passes,
            "seconds": seconds,
        }

    def _fine_tuned(self, model: Model, train: Dataset, test: Dataset, ctx: RunContext) -> float:
        counts = train["class"][train.known("class")].bincount()
        few = hide.per_class(train, min(self.labels, int(counts[counts > 0].min())), seed=ctx.seed)
        tuned = Recipe.parse("supervised").run(few, model, _bare(ctx, Budget.parse(self.fine_tuning), "class"))
        return evaluate(tuned.model, test, "class").value


ASKED = ("neighbours", "linear", "fine-tuned", "rank")


def _bare(ctx: RunContext, budget: Budget, task: str | None = None) -> RunContext:
    """Return the context of a training within the study: no checkpoints, no snapshots."""
    return RunContext(seed=ctx.seed, task=task, budget=budget, device=ctx.device, precision=ctx.precision)


def _notes(rows: list[dict[str, str | float]]) -> tuple[str, ...]:
    best = {what: max(rows[1:], key=lambda row: row[what])["member"] for what in ASKED[:3]}
    said = ", ".join(f"{member} by {what}" for what, member in best.items())
    return (f"One seed. Best here: {said}.", "Ranks of different methods are not comparable.")
