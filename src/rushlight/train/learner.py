"""Learners: modules that are stages.

A method says what it builds and what one step's loss is. The rest is here and in `train.loop`, once: the budget that
becomes a number of steps, the rows of each step's batch, the schedule, checkpoints, learning curves, and what happens
when memory runs out or a loss is not finite.

Randomness is stateless: the rows of step t and every draw within it depend on (seed, t) alone. So a resumed run
repeats an undisturbed one, whatever happened to it in between.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Int
from tensordict import TensorDict
from torch import Tensor, nn

from rushlight import tasks
from rushlight.augment.view import View
from rushlight.core.card import Card
from rushlight.core.errors import UserError
from rushlight.core.seeds import mix
from rushlight.data.columns import KINDS, PROVENANCE
from rushlight.data.dataset import Dataset, Info
from rushlight.nets.vit import check_vit
from rushlight.run.budget import Budget, count_flops, pass_flops
from rushlight.run.model import Model, ModelInfo
from rushlight.run.stage import Outcome, RunContext, Stage
from rushlight.tasks.base import Task
from rushlight.train import optim
from rushlight.train.plan import Plan, permuted
from rushlight.train.teacher import Teacher

Batch = dict[str, TensorDict]


class Learner(nn.Module, Stage):
    """Base of every method that trains by gradient steps.

    A subclass gives `card`, its settings (`@settings`), `build` and `step`; it may override `finish`, `groups`,
    `after_step` and `clip_gradients`.

    Attributes:
        parts: the streams of a batch, and how many times `batch` each of them has. `labelled` draws from the rows
            whose task column is known, every other name from all rows.
        batch: images of a part of size 1, the paper's. Unless the user wrote it, it is halved, not below
            `smallest_batch`, until the budget gives `enough_steps`: a small budget buys many small steps.
        reads: the columns that a batch holds; None takes all but those of `PROVENANCE`.
        min_ratio: sizes that parts may shrink to where the smallest batch still does not give `enough_steps`.
        optimiser, learning_rate, weight_decay, schedule, warm_up: of the training; see `train.optim`.
        nesterov: of the momentum of SGD.
        last_weight_decay: where the weight decay goes by a half cosine; None keeps it as it is.
        clip: largest norm of each parameter's gradient; None clips none.
        several_columns: whether its steps give an encoder of several columns all of them (see `in_view`).
        fresh_heads: True starts from new heads even where one that came in fits.
        model: the network in training, set before `build`; `build` gives it its heads.
        source_model: the model that came in (a teacher, an annotator), in evaluation mode.
        data_info: of the data that it was set up for; None before.
        step_index: the number of the step, from 0.
        process, processes: this process's number among those that train together, and how many there are.
        explicit: names of the settings that were written; a written setting is never overridden.
    """

    parts: dict[str, float] = {"labelled": 1}
    reads: tuple[str, ...] | None = None
    min_ratio: dict[str, float] = {}
    batch: int = 64
    smallest_batch: int = 16
    enough_steps: int = 1000
    optimiser: optim.OptimiserName = "adamw"
    nesterov: bool = True
    learning_rate: float = 2e-3
    weight_decay: float = 5e-4
    schedule: optim.ScheduleName = "cosine"
    warm_up: float = 0.05
    last_weight_decay: float | None = None
    clip: float | None = None
    several_columns: ClassVar[bool] = False
    fresh_heads: bool = False
    card: ClassVar[Card]
    model: Model
    source_model: Model
    ctx: RunContext
    data_info: Info | None = None
    plan: Plan
    step_index: int = 0
    process: int = 0
    processes: int = 1
    explicit: frozenset[str] = frozenset()
    elapsed_share: float | None = None

    def __new__(cls, *_: Any, **written: Any) -> Any:
        """Set the module up before its settings are assigned, and remember which of them the user wrote."""
        learner = super().__new__(cls)
        nn.Module.__init__(learner)
        learner.explicit = frozenset(written)
        return learner

    if TYPE_CHECKING:  # what a method's `build` adds is its own: modules, policies, buffers

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self) -> None:
        """Leave the module as `__new__` set it up: settings are fields, and need no constructor."""

    # What a method writes ---------------------------------------------------------------------------------------------

    def build(self, data: Dataset) -> None:
        """Give `self.model` its heads, from the data's columns. By default: the task's own."""
        self.add_head(self.task.id, self.classifier(data))

    def step(self, batch: Batch) -> Tensor:
        """Return the loss of one batch of raw columns on the device."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Update the teacher after the optimiser's step, if there is one."""
        teacher = getattr(self, "teacher", None)
        if isinstance(teacher, Teacher):
            teacher.update(self.model)

    def groups(self) -> list[dict]:
        """Return the optimiser's parameter groups; a group's `scale` multiplies the learning rate."""
        return optim.parameter_groups(self, self.weight_decay)

    def clip_gradients(self, groups: list[dict]) -> None:
        """Clip the gradients before the optimiser's step: by default each parameter's, to the norm `clip`."""
        if self.clip is not None:
            for group in groups:
                optim.clip_each(group["params"], self.clip)

    def finish(self) -> Model:
        """Return the trained model: the teacher's copy where there is one, else the model."""
        teacher = getattr(self, "teacher", None)
        source = teacher.network if isinstance(teacher, Teacher) else self.model
        return copy.deepcopy(source).requires_grad_(True).eval()

    # What a method may use --------------------------------------------------------------------------------------------

    @property
    def progress(self) -> float:
        """Return the share of the training that is done, 0 … 1."""
        if self.elapsed_share is not None:
            return min(self.elapsed_share, 1.0)
        return min(self.step_index / max(self.plan.steps, 1), 1.0)

    def generator(self, stream: int = 0) -> torch.Generator:
        """Return the random generator of this step: the same for the same seed, step, process and stream."""
        seed = mix(self.ctx.seed, self.step_index, self.process, stream)
        return torch.Generator(self.device).manual_seed(seed)

    def joint_generator(self, stream: int = 0) -> torch.Generator:
        """Return the same generator on every process of this step, for what is drawn for the joined batch."""
        return torch.Generator(self.device).manual_seed(mix(self.ctx.seed, self.step_index, stream, 11))

    def local_rows(self, joined: Tensor) -> Tensor:
        """Return this process's rows of values that were drawn for the joined batch."""
        return joined[self.process :: self.processes]

    def log(self, **values: Tensor | float) -> None:
        """Log values of this step: they show in the progress and in the trial's record."""
        self.logged = {name: v.detach() if isinstance(v, Tensor) else v for name, v in values.items()}

    def add_head(self, name: str, head: nn.Module) -> None:
        """Give the model a head; a head of equal configuration in the incoming model passes its weights on."""
        if not self.fresh_heads:
            self.source_model.hand_on(name, head)
        self.model.heads.update({f"{name}_head": head})

    def in_view(self, view: View, images: Tensor, columns: TensorDict) -> Tensor | dict[str, Tensor]:
        """Return what the encoder reads of a view: its images, and further columns moved by the same matrices."""
        read = self.model.encoder.columns
        if read == ("image",):
            return images
        return {name: images if name == "image" else _moved(view, name, columns[name]) for name in read}

    def classifier(self, data: Dataset) -> nn.Module:
        """Return a fresh head for the task."""
        return self.task.head(self.model.encoder, data)

    @property
    def task(self) -> Task:
        found = tasks.find(self.ctx.task) if self.ctx.task is not None else tasks.all()[0]
        return found if self.data_info is None else found.of(self.data_info)

    @property
    def name(self) -> str:
        return self.card.id

    @property
    def device(self) -> torch.device:
        return torch.device(self.ctx.device)

    def train(self, mode: bool = True) -> Learner:
        """Set training mode; the incoming model stays in evaluation mode."""
        super().train(mode)
        source = self._modules.get("source_model")
        if source is not None:
            source.eval()
        return self

    def make_optimiser(self) -> torch.optim.Optimizer:
        """Return the optimiser of the method's groups, at its peak rate."""
        groups, rate = self.groups(), self.learning_rate
        return optim.optimiser(self.optimiser, groups, learning_rate=rate, nesterov=self.nesterov)

    # The stage --------------------------------------------------------------------------------------------------------

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        """Train on the data, starting from the model's encoder, within the budget.

        When memory runs out, the batch is halved and the training starts again with the same budget.

        Raises:
            UserError: the data lacks what the card needs.
            Diverged: a loss is not finite.
        """
        from rushlight.train.loop import train

        self.check(data, model, ctx)
        return train(self, data, model, ctx)

    def check(self, data: Dataset, model: Model, ctx: RunContext) -> None:
        """Refuse data and encoders that the method cannot use.

        Raises:
            UserError: it is one of these.
        """
        lacks = self.card.lacks(data, ctx.task)
        if lacks:
            raise UserError(f"'{self.name}' does not fit this data: it {lacks}")
        if self.card.encoder == "vit":
            check_vit(model.encoder, self.name)
        read = model.encoder.columns
        if len(read) > 1 and not self.several_columns:
            raise UserError(f"'{self.name}' trains encoders of one column, and '{model.encoder.name}' reads "
                            f"{' and '.join(read)}: start it from an encoder of images")  # fmt: skip
        lacking = [column for column in read if column not in data]
        if self.several_columns and lacking:
            raise UserError(f"'{model.encoder.name}' reads {' and '.join(read)}, and {data.info.source} has no "
                            f"'{lacking[0]}'")  # fmt: skip

    def prepare(self, data: Dataset, model: Model, ctx: RunContext) -> None:
        """Set the network up for this data; afterwards `step` can be called."""
        self.ctx, self.data_info = ctx, data.info
        self.seed_everything(0)
        self.source_model = model.copy().eval().requires_grad_(False)
        self.pass_cost = pass_flops(model.encoder, (data.height, data.width))  # `build` may enlarge the encoder
        info = ModelInfo.of(data.info, (data.height, data.width), ctx.task)
        self.model = Model(copy.deepcopy(model.encoder).train().requires_grad_(True), {}, info)
        self.build(data)
        self.data = data
        self._rows = {part: self.rows(data, part) for part in self.parts}
        self._names = self.reads or tuple(name for name in data.columns if name not in PROVENANCE)
        self._resident: TensorDict | None = None
        if ctx.device != "cpu":
            self.to(ctx.device)
            if _fits(data.nbytes(self._names), ctx.device):
                self._resident = data.batch(slice(None), self._names).to(ctx.device)

    def rows(self, data: Dataset, part: str) -> Int[Tensor, "n"]:
        """Return the rows that a stream of the batch draws from."""
        if part == "labelled":
            return data.known(self.task.column).nonzero().squeeze(1)
        return torch.arange(len(data))

    def draw(self, batch: int, step: int) -> Batch:
        """Return the raw columns of one step's batch."""
        drawn = {}
        for stream, (part, times) in enumerate(self.parts.items()):
            chosen = self.local_rows(self.pick(part, round(batch * times), step, mix(self.ctx.seed, stream)))
            resident = self._resident
            columns = self.data.batch(chosen, self._names) if resident is None else resident[chosen.to(self.device)]
            drawn[part] = columns.to(self.device, non_blocking=True).set("row", chosen.to(self.device))
        return drawn

    def pick(self, part: str, batch: int, step: int, seed: int) -> Int[Tensor, "batch"]:
        """Return a stream's rows of one step, for all processes: epochs of permutations, one after the other."""
        rows = self._rows[part]
        return rows[permuted(len(rows), batch, step, seed)]

    def forward(self, step: int) -> Tensor:
        """Return the loss of a step of the training, drawn by its number."""
        return self.step(self.draw(self.plan.batch, step))

    def plan_for(self, budget: Budget, largest: int | None = None, wanted: int | None = None) -> Plan:
        """Return the plan that the budget allows: the cost of a step is counted on a copy, once per batch.

        Args:
            largest: batch that memory allows; wanted: the one that it did not. The learning rate follows.
        """
        plan = self._planned(budget, min(self.batch, largest or self.batch))
        if wanted is None or plan.batch >= wanted:
            return plan
        return replace(plan, rate=optim.rate_for_batch(self.optimiser, plan.batch / wanted))

    def _planned(self, budget: Budget, batch: int) -> Plan:
        cost = self.pass_cost
        while True:
            flops = self._count(batch)
            if budget.minutes is not None:
                return Plan(batch, 10**9, flops, cost)
            steps = max(int((budget.passes or 0) * cost / flops), 1)
            if steps >= self.enough_steps:
                return Plan(batch, steps, flops, cost)
            if batch // 2 >= self.smallest_batch and "batch" not in self.explicit:
                batch //= 2
            elif self._shrinkable():
                self.parts = {**self.parts, **self.min_ratio}
            else:
                return Plan(batch, steps, flops, cost)

    def _shrinkable(self) -> bool:
        larger = any(self.parts[part] > size for part, size in self.min_ratio.items())
        return larger and "ratio" not in self.explicit

    def _count(self, batch: int) -> float:
        probe = copy.deepcopy(self).train()
        probe.plan, probe.elapsed_share = Plan(batch, 1, 1.0, 1.0), None
        drawn = probe.draw(batch, 0)
        return count_flops(lambda: probe.step(drawn).backward())

    def seed_everything(self, step: int) -> None:
        """Seed what takes no generator (dropout). Not by `torch.manual_seed`: while no GPU is in use, it keeps a
        formatted traceback for each kind of them, which costs more than a small step's views."""
        seed = mix(self.ctx.seed, step, 7)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)


def _moved(view: View, name: str, values: Tensor) -> Tensor:
    """Return a column as it is in a view."""
    move = KINDS[name].moves
    return getattr(view, move)(values) if move else values


def _fits(size: int, device: str) -> bool:
    if not device.startswith("cuda"):
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return size < free / 3
