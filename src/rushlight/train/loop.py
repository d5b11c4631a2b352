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

from rushlight.data.dataset import Dataset
from rushlight.nets.encoders.base import arrange
from rushlight.nets.norm import synchronise
from rushlight.run.budget import Spent
from rushlight.run.model import Model
from rushlight.run.stage import Diverged, Outcome, Progress, RunContext, joined
from rushlight.train import optim
from rushlight.train.learner import Learner
from rushlight.train.plan import Plan
from rushlight.train.watch import Watch

logging.getLogger("lightning.fabric").setLevel(logging.ERROR)  # its notices are about the machine, not the run
logging.getLogger("lightning_fabric").setLevel(logging.ERROR)


def train(learner: Learner, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
    """Train a learner to the end of its budget; where memory runs out, start again with half of the batch."""
    largest: int | None = None
    wanted: int | None = None
    notes: tuple[str, ...] = ()
    while True:
        training = None
        try:
            training = Training(learner, data, model, ctx, largest=largest, wanted=wanted, notes=notes)
            while not training.done:
                training.advance()
            return training.outcome(data)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            batch = training.plan.batch if training is not None else largest or learner.batch
            if not _out_of_memory(error) or batch <= 1:
                raise
            largest, wanted = max(batch // 2, 1), wanted or batch
            note = (f"{learner.name}: out of memory with a batch of {batch}; trained with {largest}, its learning rate "
                    "rescaled, on the same budget")  # fmt: skip
            notes = (*(training.notes if training is not None else notes), note)
            warnings.warn(note, stacklevel=3)
            checkpoint_path(ctx).unlink(missing_ok=True) if ctx.folder is not None else None


class Training:
    """One training as a session.

    A checkpoint in the context's folder is gone on with, by the plan that it carries; a resumed training repeats an
    undisturbed one to the bit on a CPU.

    Args:
        learner: is prepared for the data, and trained in place.
        largest: batch that memory allows; wanted: the one that it did not. notes: on what went before.

    Attributes:
        steps: of the optimiser that are done. plan: the budget made concrete. curve: points of the learning curve.
        notes: sentences that the record must hold.
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
        notes: tuple[str, ...] = (),
    ):
        self.started = time.monotonic()  # what `prepare` computes (a teacher's features, clusters) takes time too
        learner.prepare(data, model, ctx)
        self.learner, self.ctx = learner, ctx
        state = _checkpoint(ctx)
        learner.elapsed_share = None
        self._follow(_plan_of(state, learner) if state else learner.plan_for(ctx.budget, largest, wanted))
        learner.seed_everything(0)
        self.fabric = _fabric(ctx)
        learner.process, learner.processes = self.fabric.global_rank, self.fabric.world_size
        if ctx.devices > 1:
            synchronise(learner)
        arrange(learner)
        learner.train()
        self.module, self.optimiser = self.fabric.setup(learner, learner.make_optimiser())
        self.steps, self.before, self.notes = 0, 0.0, notes
        self.curve: list[tuple[float, float]] = []
        self.watch = Watch(learner.device)
        if state:
            self._restore(state)
            self.started = time.monotonic()  # what is prepared again was counted before
        self.saved = self.told = time.monotonic()
        self._count_time()
        self.moments = _moments(ctx, self.plan, self._progress(), self.steps)
        if ctx.on_start is not None:
            ctx.on_start(self)

    # Going on ---------------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Return whether the budget is spent; any budget buys one step."""
        return self._progress() >= 1 and self.steps > 0

    def advance(self, steps: int = 1) -> None:
        """Make this many steps of the optimiser, fewer where the budget ends before that.

        Raises:
            Diverged: a loss is not finite; a state before that step is kept for a replay. On a CPU it is found at
                once, on a GPU after some steps (see `train.watch`), and before anything is handed out.
        """
        for _ in range(steps):
            if self.done:
                return
            self._step()
            self._after()

    def go_to(self, state: dict[str, Any], step: int) -> None:
        """Go on from a kept state, by its own plan, to just before a step."""
        self._follow(_plan_of(state, self.learner))
        self._restore(state)
        while self.steps < step:
            self._step()
            self._after()
        self.at(step)

    def at(self, step: int) -> None:
        """Make the draws of a step the next ones."""
        self.learner.step_index = step
        self.learner.seed_everything(step)

    def _follow(self, plan: Plan) -> None:
        self.plan = self.learner.plan = plan

    def _step(self) -> None:
        learner = self.learner
        self.at(self.steps)
        self._set_rates()
        self.optimiser.zero_grad()
        loss = self.module(self.steps)
        self.watch.see(self.steps, loss)
        if self.watch.due:
            self._look()
            self._keep_finite()
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
        if self.done:
            self._look()
        while self.moments and self._reached(self.moments[0]):
            self.moments.pop(0)
            self._snapshot()
        now = time.monotonic()
        if ctx.on_progress is not None and now - self.told > 0.5:
            logged = {"loss": self.loss, **getattr(learner, "logged", {})}
            ctx.on_progress(Progress(learner.name, learner.progress, {name: float(v) for name, v in logged.items()}))
            self.told = now
        if ctx.folder is not None and now - self.saved > ctx.checkpoint_seconds:
            self._look()
            self.save(checkpoint_path(ctx))
            self.saved = now

    def _look(self) -> None:
        """Stop where a loss that nobody has looked at was not finite."""
        step = self.watch.bad()
        if step is not None:
            raise Diverged(self.learner.name, step, self._keep_diverged(step), self.spent)

    def _keep_finite(self) -> None:
        """Keep the state whose loss was just seen to be finite; where each loss is looked at, it is at hand anyway."""
        needed = self.watch.every > 1 and self.ctx.folder is not None
        self.watch.keep(self.state() if needed else {})

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
        self._look()
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
        self._look()
        return self.learner.finish().to("cpu")

    def outcome(self, data: Dataset) -> Outcome:
        """Return the finished training's outcome, and remove its checkpoint."""
        result = Outcome(data, self.finish(), self.spent, tuple(self.curve), notes=self.notes)
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
            "notes": list(self.notes),
        }

    def save(self, path: Path, state: dict[str, Any] | None = None) -> None:
        """Write the state (or an earlier one) whole: into a temporary file of its folder, flushed, then renamed."""
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.fabric.global_rank == 0:
            torch.save(state or self.state(), partial)
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)

    def _restore(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.steps, self.before = state["steps"], state["elapsed"]
        self.curve = [(passes, value) for passes, value in state["curve"]]
        self.notes = joined(tuple(state.get("notes", ())), self.notes)

    def _keep_diverged(self, step: int) -> Path | None:
        if self.ctx.folder is None:
            return None
        path = self.ctx.folder / f"diverged-step-{step}.ckpt"
        self.save(path, self.watch.kept)
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
        return [share for share in shares if share > progress or not steps]
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
