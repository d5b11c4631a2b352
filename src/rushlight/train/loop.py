"""The training loop, on Lightning Fabric: a session that can be advanced, stopped, kept and gone on with.

`train` is a loop over a session. Federated rounds, alternating players and stages within stages call the same
`Training`: `advance(n)`, `state()`, `finish()`.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from rushlight.core.findings import Findings
from rushlight.data.dataset import Dataset
from rushlight.nets.encoders.base import arrange
from rushlight.nets.norm import synchronise
from rushlight.run.budget import Spent
from rushlight.run.model import Model
from rushlight.run.stage import Diverged, Outcome, Progress, RunContext
from rushlight.train import optim
from rushlight.train.learner import Learner
from rushlight.train.plan import Plan

logging.getLogger("lightning.fabric").setLevel(logging.ERROR)  # its notices are about the machine, not the run
logging.getLogger("lightning_fabric").setLevel(logging.ERROR)

LOOKS = 50
"""On a GPU a loss is looked at once in so many steps: looking makes it wait."""


def train(learner: Learner, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
    """Train a learner to the end of its budget; where memory runs out, start again with half of the batch."""
    largest: int | None = None
    wanted: int | None = None
    notes: list[str] = []
    while True:
        training = None
        try:
            training = Training(learner, data, model, ctx, largest=largest, wanted=wanted)
            while not training.done:
                training.advance()
            return training.outcome(data, notes)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            batch = training.plan.batch if training is not None else largest or learner.batch
            if not _out_of_memory(error) or batch <= 1:
                raise
            largest, wanted = max(batch // 2, 1), wanted or batch
            notes.append(f"{learner.name}: out of memory with a batch of {batch}; trained with {largest}, its learning "
                         "rate rescaled, on the same budget")  # fmt: skip
            warnings.warn(notes[-1], stacklevel=3)
            checkpoint_path(ctx).unlink(missing_ok=True) if ctx.folder is not None else None


class Training:
    """One training as a session.

    A checkpoint in the context's folder is gone on with, by the plan that it carries; a resumed training repeats an
    undisturbed one to the bit on a CPU.

    Args:
        learner: is prepared for the data, and trained in place.
        largest: batch that memory allows; wanted: the one that it did not.

    Attributes:
        steps: of the optimiser that are done. plan: the budget made concrete. curve: points of the learning curve.
    """

    def __init__(
        self,
        learner: Learner,
        data: Dataset,
        model: Model,
        ctx: RunContext,
        *,
        largest: int | None = None,
        wanted: int | None = None,
    ):
        learner.prepare(data, model, ctx)
        self.learner, self.ctx = learner, ctx
        state = _checkpoint(ctx)
        learner.elapsed_share = None
        self.plan = _plan_of(state, learner) if state else learner.plan_for(ctx.budget, largest, wanted)
        learner.plan = self.plan
        learner.seed_everything(0)
        self.fabric = _fabric(ctx)
        learner.process, learner.processes = self.fabric.global_rank, self.fabric.world_size
        if ctx.devices > 1:
            synchronise(learner)
        arrange(learner)
        learner.train()
        self.module, self.optimiser = self.fabric.setup(learner, learner.make_optimiser())
        self.steps, self.before = 0, 0.0
        self.curve: list[tuple[float, float]] = []
        if state:
            self._restore(state)
        self.started = self.saved = self.told = time.monotonic()
        self._count_time()
        self.moments = _moments(ctx, self.plan, self._progress(), self.steps)
        if ctx.on_start is not None:
            ctx.on_start(self)

    # Going on ---------------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Return whether the budget is spent."""
        return self._progress() >= 1

    def advance(self, steps: int = 1) -> None:
        """Make this many steps of the optimiser, fewer where the budget ends before that.

        Raises:
            Diverged: a loss is not finite; the state before that step is kept for a replay.
        """
        for _ in range(steps):
            if self.done:
                return
            self._step()
            self._after()

    def _step(self) -> None:
        learner = self.learner
        learner.step_index = self.steps
        self._set_rates()
        learner.seed_everything(self.steps)
        self.optimiser.zero_grad()
        loss = self.module(self.steps)
        if (learner.device.type == "cpu" or self.steps % LOOKS == 0) and not bool(loss.isfinite()):
            raise Diverged(learner.name, self.steps, self._keep_diverged())
        self.fabric.backward(loss)
        learner.clip_gradients(self.optimiser.param_groups)
        self.optimiser.step()
        self.loss = loss.detach()
        self.steps += 1

    def _after(self) -> None:
        """Update after each step: the teacher, learning-curve snapshots, progress and checkpoints."""
        learner, ctx = self.learner, self.ctx
        learner.step_index = self.steps
        learner.after_step()
        self._count_time()
        while self.moments and self._reached(self.moments[0]):
            self.moments.pop(0)
            self._snapshot()
        now = time.monotonic()
        if ctx.on_progress is not None and now - self.told > 0.5:
            logged = {"loss": self.loss, **getattr(learner, "logged", {})}
            ctx.on_progress(Progress(learner.name, learner.progress, {name: float(v) for name, v in logged.items()}))
            self.told = now
        if ctx.folder is not None and now - self.saved > ctx.checkpoint_seconds:
            self.save(checkpoint_path(ctx))
            self.saved = now

    def _set_rates(self) -> None:
        learner = self.learner
        factor = optim.schedule(learner.schedule, learner.progress, warm_up=learner.warm_up) * self.plan.rate
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * factor
            if learner.last_weight_decay is not None and not group.get("plain"):
                fall = optim.half_cosine(learner.progress)
                last = learner.last_weight_decay
                group["weight_decay"] = last + (learner.weight_decay - last) * fall

    def _snapshot(self) -> None:
        if self.ctx.on_snapshot is None:
            return
        spent = self.ctx.spent_before + self.spent
        value = self.ctx.on_snapshot(self.learner.finish(), spent)
        if value is not None:
            self.curve.append((spent.passes, value))

    # What it has come to ----------------------------------------------------------------------------------------------

    @property
    def spent(self) -> Spent:
        """Return what the training has used so far."""
        return self.plan.spent(self.steps, self._elapsed())

    def finish(self) -> Model:
        """Return what the learner hands on, on the CPU."""
        return self.learner.finish().to("cpu")

    def outcome(self, data: Dataset, notes: list[str]) -> Outcome:
        """Return the finished training's outcome, and remove its checkpoint."""
        findings = Findings(self.learner.name, notes=tuple(notes)) if notes else None
        result = Outcome(data, self.finish(), self.spent, tuple(self.curve), findings)
        if self.ctx.folder is not None:
            checkpoint_path(self.ctx).unlink(missing_ok=True)
        return result

    def state(self) -> dict[str, Any]:
        """Return everything needed to resume: weights, optimiser, step, plan, streams, curve, time."""
        return {
            "learner": self.learner.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
            "elapsed": self._elapsed(),
            "plan": asdict(self.plan),
            "parts": dict(self.learner.parts),
            "curve": [list(point) for point in self.curve],
        }

    def save(self, path: Path) -> None:
        """Write the state whole: into a temporary file of the same folder, flushed, then renamed."""
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.fabric.global_rank == 0:
            torch.save(self.state(), partial)
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)

    def _restore(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.steps, self.before = state["steps"], state["elapsed"]
        self.curve = [(passes, value) for passes, value in state["curve"]]

    def _keep_diverged(self) -> Path | None:
        if self.ctx.folder is None:
            return None
        path = self.ctx.folder / f"diverged-step-{self.steps}.ckpt"
        self.save(path)
        return path

    # Time -------------------------------------------------------------------------------------------------------------

    def _elapsed(self) -> float:
        return self.before + time.monotonic() - self.started

    def _count_time(self) -> None:
        if self.ctx.budget.minutes is not None:
            self.learner.elapsed_share = self._elapsed() / (60 * self.ctx.budget.minutes)

    def _progress(self) -> float:
        if self.learner.elapsed_share is not None:
            return self.learner.elapsed_share
        return self.steps / self.plan.steps

    def _reached(self, moment: float) -> bool:
        return self._progress() >= moment if self.ctx.budget.minutes is not None else self.steps >= moment


def checkpoint_path(ctx: RunContext) -> Path:
    """Return where a training of this context keeps its state."""
    assert ctx.folder is not None
    return ctx.folder / "checkpoint.ckpt"


def _checkpoint(ctx: RunContext) -> dict[str, Any] | None:
    if ctx.folder is None or not checkpoint_path(ctx).exists():
        return None
    return torch.load(checkpoint_path(ctx), weights_only=True, map_location="cpu")


def _plan_of(state: dict[str, Any], learner: Learner) -> Plan:
    """Return the plan that a checkpoint was trained by, and set the learner's streams from it."""
    learner.parts = state["parts"]
    return Plan(**state["plan"])


def _moments(ctx: RunContext, plan: Plan, progress: float, steps: int) -> list[float]:
    """Return when snapshots are due: steps, or shares of the time; the end is not one of them."""
    shares = [i / ctx.snapshots for i in range(1, ctx.snapshots)]
    if ctx.budget.minutes is not None:
        return [share for share in shares if share > progress]
    return sorted({float(round(plan.steps * share)) for share in shares if round(plan.steps * share) > steps})


def _fabric(ctx: RunContext) -> Fabric:
    fabric = Fabric(
        accelerator="gpu" if ctx.device.startswith("cuda") else ctx.device,
        devices=ctx.devices,
        strategy="ddp" if ctx.devices > 1 else "auto",
        precision=ctx.precision,  # type: ignore[arg-type]
    )
    if ctx.devices > 1:
        fabric.launch()
    return fabric


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
