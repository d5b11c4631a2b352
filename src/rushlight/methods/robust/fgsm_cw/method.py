"""FGSM, Carlini–Wagner and defensive distillation: audit a classifier against cheap and strong evasion.

How far does accuracy fall under one signed gradient step, and under an attack that looks for the nearest image that
fools the network? Does training on softened labels help? After distillation at T = 100 the softmax saturates in
float32: FGSM finds no gradient, Carlini–Wagner succeeds. So every audit re-runs FGSM in float64 and on z/T, and says
what only hides. Only images that the model gets right are attacked; strengths are of images in [0, 1].

arXiv:2404.04245 (comparison), 1412.6572 (FGSM), 1706.06083 (PGD), 1608.04644 (CW), 1511.04508 (distillation).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rushlight.augment import presets
from rushlight.core.arguments import Count, NotNegative, Positive, Share, checked, settings
from rushlight.core.card import Card, Needs, known
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.losses import supervised
from rushlight.methods.robust.fgsm_cw import distill, perturb
from rushlight.methods.robust.fgsm_cw.evasion import Audit, findings, size
from rushlight.nets import encoders
from rushlight.run.budget import pass_flops
from rushlight.run.context import RunContext
from rushlight.run.model import Model
from rushlight.run.stage import Attack, Findings, Judge, Outcome, Threat
from rushlight.train import optim
from rushlight.train.learner import Batch, Learner

Images = Float[Tensor, "batch 3 height width"]
Labels = Int[Tensor, "batch"]
LogitsFn = Callable[[Tensor], Tensor]
NEEDS = Needs("image", known("class"))
GRID = tuple(sorted([step / 100 for step in range(1, 11)] + [levels / 255 for levels in (2, 4, 8, 16)]))
"""FGSM's strengths: the report's ten, and those that tables of robust models use."""
PRESETS = {
    "fast": perturb.FAST,
    "standard": perturb.CarliniWagner(steps=100, searches=3),
    "full": perturb.FULL,
}
PGD_GRID = (2 / 255, 4 / 255, 8 / 255, 16 / 255, 0.1)


class FGSM(Attack):
    """One step of the signed gradient (under L2, of the gradient of unit length)."""

    card = Card(
        id="fgsm",
        title="FGSM: Explaining and Harnessing Adversarial Examples",
        paper="arXiv:1412.6572",
        family="robust",
        role="attack",
        needs=NEEDS,
        gives="images one gradient step away on which a classifier errs",
        says="99.9 % error of a shallow softmax classifier on MNIST at ε = 0.25, 89.4 % of a maxout network",
    )

    def perturb(
        self,
        logits: LogitsFn,
        images: Images,
        target: Labels,
        threat: Threat = Threat(),
        generator: torch.Generator | None = None,
    ) -> Images:
        eps, targeted = threat.strength, threat.targeted
        if threat.norm == "inf":
            return perturb.fgsm(logits, images, target, eps=eps, targeted=targeted)
        return perturb.pgd(logits, images, target, eps=eps, step=eps, steps=1, norm="l2", targeted=targeted)


@settings
class PGD(Attack):
    """Projected gradient steps in an L∞ or L2 ball, from a random start where a generator is given."""

    card = Card(
        id="pgd",
        title="PGD: Towards Deep Learning Models Resistant to Adversarial Attacks",
        paper="arXiv:1706.06083",
        family="robust",
        role="attack",
        needs=NEEDS,
        gives="images within a ball on which a classifier errs",
        says="an undefended CIFAR-10 network falls to 3.5 % accuracy within 8/255",
    )

    steps: Count = 10
    """How many."""
    step: Positive | None = None
    """Length of each; None takes 2.5 strength / steps."""

    def __post_init__(self) -> None:
        checked("pgd", PGD, vars(self))  # no recipe names an attack: its ranges are looked at here

    def perturb(
        self,
        logits: LogitsFn,
        images: Images,
        target: Labels,
        threat: Threat = Threat(),
        generator: torch.Generator | None = None,
    ) -> Images:
        return perturb.pgd(
            logits,
            images,
            target,
            eps=threat.strength,
            step=self.step,
            steps=self.steps,
            norm="linf" if threat.norm == "inf" else "l2",
            generator=generator,
            targeted=threat.targeted,
        )


@settings
class CarliniWagner(Attack):
    """The nearest image in L2 that fools the network; beyond the threat's strength it does not count."""

    card = Card(
        id="carlini-wagner",
        title="Carlini–Wagner L2: Towards Evaluating the Robustness of Neural Networks",
        paper="arXiv:1608.04644",
        family="robust",
        role="attack",
        needs=NEEDS,
        gives="the nearest images found on which a classifier errs",
        says="100 % success on plainly trained and on defensively distilled networks",
    )

    preset: Literal["fast", "standard", "full"] = "standard"
    """`fast`: c = 1, 50 steps; `standard`: c from 1, three times 100; `full`: c from 1e-3, nine times 10,000."""
    c: Positive | None = None
    """The price of not fooling the network, at first; None takes the preset's."""
    confidence: NotNegative | None = None
    """κ, the margin by which it must be fooled; None takes the preset's."""
    steps: Count | None = None
    """Of Adam for each c; None takes the preset's."""
    rate: Positive | None = None
    """Adam's learning rate; None takes the preset's."""
    searches: Count | None = None
    """How many values of c each image tries; None takes the preset's."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UserError(f"carlini-wagner has the presets {', '.join(PRESETS)}, not '{self.preset}'")
        checked("carlini-wagner", CarliniWagner, vars(self))
        names = ("c", "confidence", "steps", "rate", "searches")
        written = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        self.settings = replace(PRESETS[self.preset], **written)

    def perturb(
        self,
        logits: LogitsFn,
        images: Images,
        target: Labels,
        threat: Threat = Threat("2", float("inf")),
        generator: torch.Generator | None = None,
    ) -> Images:
        found = perturb.carlini_wagner_l2(logits, images, target, targeted=threat.targeted, settings=self.settings)
        within = size(found - images, threat.norm) <= threat.strength
        return torch.where(within[:, None, None, None], found, images)


@settings
class DefensiveDistillation(Learner):
    """A student trained at temperature T on a teacher's softened labels; each gets half of the budget."""

    card = Card(
        id="defensive-distillation",
        title="Defensive distillation: Distillation as a Defense to Adversarial Perturbations",
        paper="arXiv:1511.04508",
        family="robust",
        role="defence",
        task=frozenset({"class"}),
        needs=NEEDS,
        gives="a classifier distilled at a high temperature, to be audited",
        says="CIFAR-10: the distilled student withstands FGSM but not Carlini–Wagner (arXiv:2404.04245)",
    )

    temperature: Positive = 100.0
    """T, of teacher and student."""
    teacher: str | None = None
    """The teacher's encoder by name; None takes the student's."""
    kd: bool = False
    """Learn Hinton's loss α T² KL(q ‖ p_T) + (1 − α) CE(labels) instead of the soft cross-entropy."""
    alpha: Share = 0.9
    """α of that loss."""
    batch: Count = 64
    """Labelled images a step."""
    learning_rate: Positive = 2e-3
    """Of AdamW, at its peak; an adaptive optimiser, since gradients shrink by 1/T."""
    weight_decay: NotNegative = 5e-4
    """Of AdamW."""

    def __post_init__(self) -> None:
        self._teachers: list[Model] = []
        self.teaches = False

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        """Train the teacher on the labels, then the student on the teacher's soft labels."""
        if self.teaches:
            return super().run(data, model, ctx)
        first = copy.deepcopy(self)
        first.teaches = True
        taught = ctx.substage("teacher", share=0.5, curve=False).run(first, data, model)
        self._teachers = [taught.model]
        return super().run(data, model, ctx.after(taught.spent)).charged(taught.spent, taught.notes)

    def prepare(self, data: Dataset, model: Model, ctx: RunContext) -> None:
        first = model
        if self.teacher is not None and not self._teachers:
            encoder = encoders.create(self.teacher, image_size=max(data.height, data.width), seed=ctx.seed)
            first = Model(encoder, {}, model.info)
        super().prepare(data, first, ctx)
        self.pass_cost = pass_flops(model.encoder, (data.height, data.width))  # the unit stays the student's
        if self._teachers:
            self.source_model = self._teachers[0].copy().eval().requires_grad_(False).to(ctx.device)

    def build(self, data: Dataset) -> None:
        super().build(data)
        self.weak = presets.weak((data.height, data.width))

    def groups(self) -> list[dict]:
        """Return the groups, the head's rate T times as high: its logits must grow T times as large in equal steps."""
        groups = optim.parameter_groups(self.model.encoder, self.weight_decay)
        head = optim.parameter_groups(self.model.head("class"), self.weight_decay / self.temperature)
        return [*groups, *({**group, "scale": self.temperature} for group in head)]

    def step(self, batch: Batch) -> Tensor:
        labelled = batch["labelled"]
        images = self.weak(labelled["image"], generator=self.generator())
        logits, labels = self.model.logits(images).float(), labelled["class"]
        if not self._teachers:
            return supervised.classes(logits / self.temperature, labels)
        if self.kd:
            teacher = self.teacher_logits(images, labels)
            return distill.knowledge(logits, teacher, labels, temperature=self.temperature, alpha=self.alpha)
        soft = distill.soften(self.teacher_logits(images, labels), temperature=self.temperature)
        return distill.defensive(logits, soft, temperature=self.temperature)

    @torch.no_grad()
    def teacher_logits(self, images: Images, labels: Labels) -> Float[Tensor, "batch classes"]:
        """Return the teacher's logits on the student's view; the true labels are not used."""
        return self.source_model.logits(images, "class").float()


@settings
class FgsmCw(Judge):
    """Accuracy under FGSM, PGD and Carlini–Wagner; does a network resist, or only hide its gradient?"""

    card = Card(
        id="fgsm-cw",
        title="Evaluating Adversarial Robustness: FGSM, Carlini-Wagner, and Distillation as Defense",
        paper="arXiv:2404.04245",
        family="robust",
        role="judge",
        task=frozenset({"class"}),
        needs=NEEDS,
        gives="accuracy under attacks over a range of strengths, and a gradient-masking flag",
        says="both attacks degrade all networks; a distilled student withstands FGSM but not Carlini–Wagner",
    )

    images: Count = 300
    """Labelled images to attack, at most, drawn by the seed."""
    strengths: Sequence[float] = GRID
    """Of FGSM, L∞."""
    pgd: PGD | None = None
    """Its settings; it runs at 2, 4, 8, 16 / 255 and 0.1."""
    carlini_wagner: CarliniWagner | None = None
    """Its settings; None takes the preset `standard`."""
    temperature: Positive = 100.0
    """T of the re-run on z/T."""

    def __post_init__(self) -> None:
        self.strengths = tuple(self.strengths)

    def judge(self, model: Model, data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        return self.audit({"model": model}, data, ctx)

    def audit(self, models: dict[str, Model], data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        """Audit several models on the same images, each attacked by itself."""
        rows = data.known("class").nonzero().squeeze(1)
        if not len(rows):
            raise UserError("an attack needs images whose class is known, and this data has none")
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(ctx.seed))
        data = data.select(rows[order[: self.images]])
        audits = {name: self._attack(Audit(model, data, ctx.device), ctx.seed) for name, model in models.items()}
        return findings(self.card.id, audits)

    def _attack(self, audit: Audit, seed: int) -> Audit:
        audit.curve("FGSM", FGSM(), self.strengths)
        audit.curve("PGD", self.pgd or PGD(), PGD_GRID, seed)
        audit.nearest("Carlini–Wagner", self.carlini_wagner or CarliniWagner())
        audit.diagnose(eps=max(self.strengths), temperature=self.temperature)
        return audit
