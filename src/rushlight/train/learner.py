"""Learners: Lightning modules that are stages.

A system says what it builds and what one step's loss is. The rest is here, once: the budget that becomes a number of
steps, the rows of each step's batch, the schedule, checkpoints, learning curves, and what happens when memory runs
out or a loss is not finite.

Randomness is stateless: the rows of step t and every draw within it depend on (seed, t) alone. So a resumed run
repeats an undisturbed one, whatever happened to it in between.
"""

from __future__ import annotations

import copy
import logging
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from jaxtyping import Int
from lightning.fabric.utilities.warnings import PossibleUserWarning
from tensordict import TensorDict
from torch import Tensor, nn

from rushlight import tasks
from rushlight.core.card import Card
from rushlight.core.errors import UserError
from rushlight.core.seeds import mix
from rushlight.data.columns import PROVENANCE
from rushlight.data.dataset import Dataset
from rushlight.nets.norm import synchronise
from rushlight.nets.vit import is_vit
from rushlight.run.budget import Budget, Spent, count_flops, pass_flops
from rushlight.run.model import Model, ModelInfo
from rushlight.run.stage import Diverged, Progress, RunContext, Stage
from rushlight.train import optim
from rushlight.train.teacher import Teacher

Batch = dict[str, TensorDict]

for _name in (
    "lightning.pytorch",
    "lightning.fabric",
):  # its notices are about the machine, not about the run
    logging.getLogger(_name).setLevel(logging.ERROR)


@dataclass(frozen=True)
class Plan:
    """A budget made concrete: the scale of the batch, the number of steps, and what a step costs."""

    batch: int
    steps: int
    step_flops: float
    pass_flops: float

    def spent(self, steps: int, seconds: float) -> Spent:
        flops = steps * self.step_flops
        return Spent(flops / self.pass_flops, flops, steps, seconds)


class Learner(L.LightningModule, Stage):
    """Base of every method that trains by gradient steps.

    A subclass gives `card`, `__init__` (keyword-only hyper-parameters), `build` and `step`; it may override `finish`,
    `groups` and `after_step`.

    Attributes:
        parts: the streams of a batch, and how many times `batch` each of them has. `labelled` draws from the rows
            whose task column is known, every other name from all rows.
        batch: images of a part of size 1, the paper's. It is halved, not below `smallest_batch`, until the budget
            gives `enough_steps`: a small budget buys many small steps rather than a few large ones.
        reads: the columns that a batch holds; None takes all but those of `PROVENANCE`.
        least: sizes that parts may shrink to where the smallest batch still does not give `enough_steps`.
        optimiser, learning_rate, weight_decay, schedule, warm_up: of the training; see `engine.optimise`.
        last_weight_decay: where the weight decay goes by a half cosine; None keeps it as it is.
        clip: largest norm of each parameter's gradient; None clips none.
        model: the network in training, set before `build`; `build` gives it its heads.
        given: the model that came in (a teacher, an annotator), in evaluation mode.
    """

    parts: dict[str, float] = {"labelled": 1}
    reads: tuple[str, ...] | None = None
    min_ratio: dict[str, float] = {}
    batch: int = 64
    smallest_batch: int = 16
    enough_steps: int = 1000
    optimiser: optim.OptimiserName = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 5e-4
    schedule: optim.ScheduleName = "cosine"
    warm_up: float = 0.05
    last_weight_decay: float | None = None
    clip: float | None = None
    card: ClassVar[Card]
    model: Model
    explicit: frozenset[str] = frozenset()
    _step_index: int = 0
    _minutes: float | None = None
    _before: float = 0.0

    def __new__(cls, *_: Any, **written: Any) -> Any:
        """Set the module up before its settings are assigned, and remember which of them the user wrote."""
        learner = super().__new__(cls)
        L.LightningModule.__init__(learner)
        learner.explicit = frozenset(written)
        return learner

    # What a system writes ---------------------------------------------------------------------------------------------

    def build(self, data: Dataset) -> None:
        """Give `self.model` its heads, from the data's columns. By default: a linear classifier for the task."""
        self.model.heads.update({f"{self.task}_head": self.classifier(data)})

    def step(self, batch: Batch) -> Tensor:
        """The loss of one batch of raw columns on the device."""
        raise NotImplementedError

    def after_step(self) -> None:
        """After each optimiser step: the teacher follows, if there is one."""
        teacher = getattr(self, "teacher", None)
        if isinstance(teacher, Teacher):
            teacher.update(self.model)

    def groups(self) -> list[dict]:
        """The optimiser's parameter groups; a group's `scale` multiplies the learning rate."""
        return optim.parameter_groups(self, self.weight_decay)

    def finish(self) -> Model:
        """What is handed on: the teacher's copy of the model where there is one, else the model."""
        teacher = getattr(self, "teacher", None)
        source = teacher.network if isinstance(teacher, Teacher) else self.model
        return copy.deepcopy(source).requires_grad_(True).eval()

    # What a system may use --------------------------------------------------------------------------------------------

    @property
    def progress(self) -> float:
        """The share of the training that is done, 0 … 1."""
        if self._minutes is not None:
            return min(self._elapsed() / (60 * self._minutes), 1.0)
        return min(self.step_index / max(self.plan.steps, 1), 1.0)

    def generator(self, stream: int = 0) -> torch.Generator:
        """The random generator of this step: the same for the same seed, step, process and stream."""
        seed = mix(self.ctx.seed, self.step_index, self.process, stream)
        return torch.Generator(self.device).manual_seed(seed)

    def joint_generator(self, stream: int = 0) -> torch.Generator:
        """The same generator on every process of this step: for what is drawn for the joined batch (see `mine`)."""
        return torch.Generator(self.device).manual_seed(mix(self.ctx.seed, self.step_index, stream, 11))

    def local_rows(self, joined: Tensor) -> Tensor:
        """This process's rows of values that were drawn for the joined batch."""
        return joined[self.process :: self.processes]

    def log(self, **values: Tensor | float) -> None:
        """Log values of this step: they show in the progress and in the trial's record."""
        self._logged = {name: v.detach() if isinstance(v, Tensor) else v for name, v in values.items()}

    def classifier(self, data: Dataset) -> nn.Module:
        """A fresh head for the task."""
        return tasks.find(self.task).head(self.model.encoder, data)

    @property
    def step_index(self) -> int:
        """The number of the step, from 0."""
        return self.global_step if self._trainer is not None else self._step_index

    @step_index.setter
    def step_index(self, step: int) -> None:
        self._step_index = step

    @property
    def task(self) -> str:
        return self.ctx.task or "class"

    @property
    def process(self) -> int:
        return self.trainer.global_rank if self._trainer is not None else 0

    @property
    def processes(self) -> int:
        return self.trainer.world_size if self._trainer is not None else 1

    @property
    def name(self) -> str:
        return self.card.id

    def train(self, mode: bool = True) -> Learner:
        """Training mode; the model that came in stays in evaluation mode."""
        super().train(mode)
        given = self._modules.get("source_model")
        if given is not None:
            given.eval()
        return self

    # The stage --------------------------------------------------------------------------------------------------------

    def run(self, data: Dataset, model: Model, budget: Budget, ctx: RunContext = RunContext()) -> tuple[Dataset, Model]:
        """Train on the data, starting from the model's encoder, within the budget.

        When memory runs out, the batch is halved and the training starts again with the same budget.

        Raises:
            UserError: the data lacks what the card needs.
            Diverged: a loss is not finite.
        """
        lacks = self.card.lacks(data, ctx.task)
        if lacks:
            raise UserError(f"'{self.name}' does not fit this data: it {lacks}")
        if self.card.encoder == "vit" and not is_vit(model.encoder):
            raise UserError(f"'{self.name}' works on the tokens of a vision transformer, and '{model.encoder.name}' is "
                            "none: name one, such as --encoder vit96")  # fmt: skip
        largest = self.batch
        while True:
            try:
                return data, self._train(data, model, budget, ctx, largest)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _out_of_memory(error) or largest <= 1:
                    raise
                largest = max(largest // 2, 1)
                warnings.warn(f"{self.name}: out of memory; going on with a batch of {largest}, the same budget",
                              stacklevel=2)  # fmt: skip

    def run_paid(
        self, paid: Spent, data: Dataset, model: Model, budget: Budget, ctx: RunContext
    ) -> tuple[Dataset, Model]:
        """`run` on what is left of the budget, where a part is spent already (a teacher's forwards): `spent` and the
        learning curve count it."""
        left = Budget(passes=budget.passes - paid.passes) if budget.passes is not None else budget
        tell = ctx.on_snapshot
        later = replace(ctx, on_snapshot=tell and (lambda snapshot, used: tell(snapshot, paid + used)))
        result = Learner.run(self, data, model, left, later)
        self.spent = paid + self.spent  # type: ignore[has-type]
        return result

    def prepare(self, data: Dataset, model: Model, ctx: RunContext) -> None:
        """Set the network up for this data; afterwards `step` can be called."""
        self.ctx = ctx
        self._seed_everything(0)
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
        """The rows that a stream of the batch draws from."""
        if part == "labelled":
            return data.known(tasks.find(self.task).column).nonzero().squeeze(1)
        return torch.arange(len(data))

    def draw(self, batch: int, step: int) -> Batch:
        """The raw columns of one step's batch."""
        drawn = {}
        for stream, (part, times) in enumerate(self.parts.items()):
            chosen = self.local_rows(self.pick(part, round(batch * times), step, mix(self.ctx.seed, stream)))
            resident = self._resident
            columns = self.data.batch(chosen, self._names) if resident is None else resident[chosen.to(self.device)]
            drawn[part] = columns.to(self.device, non_blocking=True).set("row", chosen.to(self.device))
        return drawn

    def pick(self, part: str, batch: int, step: int, seed: int) -> Int[Tensor, "batch"]:
        """A stream's rows of one step, for all processes: epochs of permutations, one after the other."""
        rows = self._rows[part]
        return rows[_permuted(len(rows), batch, step, seed)]

    def plan_for(self, budget: Budget, largest: int | None = None) -> Plan:
        """What the budget buys: the cost of a step is counted on a copy, once for a batch."""
        cost = self.pass_cost
        batch = min(self.batch, largest or self.batch)
        while True:
            flops = self._count(batch)
            steps = max(int((budget.passes or 0) * cost / flops), 1)
            if budget.minutes is not None:
                return Plan(batch, 10**9, flops, cost)
            if steps >= self.enough_steps:
                return Plan(batch, steps, flops, cost)
            if batch // 2 >= self.smallest_batch:
                batch //= 2
            elif any(self.parts[part] > size for part, size in self.min_ratio.items()):
                self.parts = {**self.parts, **self.min_ratio}
            else:
                return Plan(batch, steps, flops, cost)

    def _count(self, batch: int) -> float:
        probe = copy.deepcopy(self).train()
        probe.plan = Plan(batch, 1, 1.0, 1.0)
        probe._start = time.monotonic()
        drawn = probe.draw(batch, 0)
        return count_flops(lambda: probe.step(drawn).backward())

    def _train(self, data: Dataset, model: Model, budget: Budget, ctx: RunContext, largest: int) -> Model:
        self.prepare(data, model, ctx)
        self._minutes, self._before = budget.minutes, 0.0
        self.plan = self.plan_for(budget, largest)
        self._seed_everything(0)
        checkpoint = self._checkpoint_path()
        resume = checkpoint if checkpoint is not None and checkpoint.exists() else None
        if ctx.devices > 1:
            synchronise(self)
        self.to(memory_format=torch.channels_last)
        trainer = L.Trainer(
            accelerator="gpu" if ctx.device.startswith("cuda") else ctx.device,
            devices=ctx.devices,
            strategy="ddp" if ctx.devices > 1 else "auto",
            precision=ctx.precision,
            max_steps=self.plan.steps,
            max_epochs=-1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            callbacks=[_Pace()],
        )
        self._start = time.monotonic()
        if ctx.on_start is not None:
            ctx.on_start(self)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)  # about loaders with workers: there is no loader
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)  # Lightning's own
            trainer.fit(self, train_dataloaders=_Ticks(), ckpt_path=resume, weights_only=True)
        self.spent = self.plan.spent(trainer.global_step, self._elapsed())
        finished = self.finish().to("cpu")
        self._trainer = None
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        return finished

    # Lightning's side -------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optim.optimiser(self.optimiser, self.groups(), learning_rate=self.learning_rate)

    def training_step(self, tick: int, index: int) -> Tensor:
        self._seed_everything(self.step_index)
        loss = self.step(self.draw(self.plan.batch, self.step_index))
        # Looking at the loss makes a GPU wait: there, now and then is enough.
        if (self.device.type == "cpu" or self.step_index % 50 == 0) and not bool(loss.isfinite()):
            raise Diverged(self.name, self.step_index, self._keep())
        self._loss = loss.detach()
        return loss

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        if self.progress >= 1 and self._minutes is not None:
            self.trainer.should_stop = True
            return -1
        factor = optim.schedule(self.schedule, self.progress, warm_up=self.warm_up)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["peak"] * factor
            if self.last_weight_decay is not None and not group.get("plain"):
                fall = optim.half_cosine(self.progress)
                group["weight_decay"] = self.last_weight_decay + (self.weight_decay - self.last_weight_decay) * fall
        return None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.clip is not None:
            for group in optimizer.param_groups:
                optim.clip_each(group["params"], self.clip)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["elapsed"] = self._elapsed()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._before = float(checkpoint["elapsed"])

    def _elapsed(self) -> float:
        return self._before + time.monotonic() - self._start

    def _seed_everything(self, step: int) -> None:
        """Seed what takes no generator (dropout). Not by `torch.manual_seed`: while no GPU is in use, it keeps a
        formatted traceback for each kind of them, which costs more than a small step's views."""
        seed = mix(self.ctx.seed, step, 7)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def _checkpoint_path(self) -> Path | None:
        return self.ctx.folder / "checkpoint.ckpt" if self.ctx.folder is not None else None

    def _keep(self) -> Path | None:
        """Write the state before this step beside the checkpoint, for a replay."""
        if self.ctx.folder is None:
            return None
        path = self.ctx.folder / f"diverged-step-{self.step_index}.ckpt"
        write_checkpoint(self.trainer, path)
        return path


class _Pace(L.Callback):
    """After each step: the teacher, progress, learning-curve snapshots and checkpoints."""

    def on_train_start(self, trainer: L.Trainer, learner: L.LightningModule) -> None:
        assert isinstance(learner, Learner)
        self.saved = self.told = time.monotonic()
        count = learner.ctx.snapshots
        moments = [round(learner.plan.steps * (i + 1) / count) for i in range(count - 1)] if count > 1 else []
        self.moments = {moment for moment in moments if moment > trainer.global_step}

    def on_train_batch_end(self, trainer: L.Trainer, learner: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        learner.after_step()
        ctx, now = learner.ctx, time.monotonic()
        if trainer.global_step in self.moments and ctx.on_snapshot is not None:
            ctx.on_snapshot(learner.finish(), learner.plan.spent(trainer.global_step, learner._elapsed()))
        if ctx.on_progress is not None and now - self.told > 0.5:
            noted = {"loss": learner._loss, **getattr(learner, "_logged", {})}
            logged = {name: float(value) for name, value in noted.items()}
            ctx.on_progress(Progress(learner.name, learner.progress, logged))
            self.told = now
        path = learner._checkpoint_path()
        if path is not None and now - self.saved > ctx.checkpoint_seconds:
            write_checkpoint(trainer, path)
            self.saved = now


class _Ticks:
    """An endless iterable: batches are drawn from the number of the step, so nothing needs to be handed over."""

    def __iter__(self) -> Iterator[int]:
        tick = 0
        while True:
            yield tick
            tick += 1


def write_checkpoint(trainer: L.Trainer, path: Path) -> None:
    """Write a checkpoint whole: into a temporary file of the same folder, flushed, then renamed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(partial)
    if trainer.global_rank == 0:
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)


def outputs_of(data: Dataset, task: str) -> int:
    """How many outputs a head for this task needs."""
    if task == "tags":
        return data["tags"].shape[1]
    names = data.info.mask_names if task == "mask" and data.info.mask_names else data.info.class_names
    if names:
        return len(names)
    values = data[task][data.column(task).known]
    return int(values.max()) + 1


def _permuted(rows: int, batch: int, step: int, seed: int) -> Int[Tensor, "batch"]:
    """Positions `step·batch … (step+1)·batch` of an endless row of permutations of 0 … rows − 1."""
    first, last = step * batch, (step + 1) * batch
    epochs = range(first // rows, (last - 1) // rows + 1)
    permutations = [_permutation(rows, mix(seed, epoch)) for epoch in epochs]
    start = first - epochs[0] * rows
    return torch.cat(permutations)[start : start + batch]


def _permutation(rows: int, seed: int) -> Int[Tensor, "rows"]:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed))


def _fits(size: int, device: str) -> bool:
    if not device.startswith("cuda"):
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return size < free / 3


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
