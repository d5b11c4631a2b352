"""Every learner on two processes equals itself on one with the joined batch: the loss and its gradients.

Views and dropped paths are taken away (each process draws them for itself); what remains is the method: norms, memory
banks, correlations and normalisers over the joined batch.
"""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from cases import LEARNERS, Case, called, cases, prepared
from timm.layers import DropPath

from rushlight.augment import presets
from rushlight.augment.policy import Policy
from rushlight.nets.norm import synchronise
from rushlight.train.joint_embedding import plain
from rushlight.train.plan import Plan

BATCH = 8
ALONE = {"pu-mlc": {"consistency": 0.0}, "histopath-ssl": {"look": plain}}
"""What each process draws for itself, as it draws views: partners to mix with; turns and stains."""
SURE = {"cw-bass": {"base": 0.2, "low": 0.0, "class_aware": "always"}}
"""Settings with which an untrained teacher's labels count, some of them."""


def outcome(case: Case, rank: int, processes: int) -> dict[str, torch.Tensor]:
    """The loss of one step and the gradients of the network, as this process has them."""
    learner, own = prepared(case), ALONE.get(case[0], {}) | SURE.get(case[0], {})
    synchronise(learner).double()  # so that what differs is the method, not the order of sums
    whole = presets.identity(learner.model.info.image_size)
    for attribute, value in vars(learner).items():
        if isinstance(value, Policy):
            setattr(learner, attribute, whole)
        elif isinstance(value, tuple | list) and any(isinstance(each, Policy) for each in value):
            setattr(learner, attribute, type(value)(whole for _ in value))
        elif attribute in own:
            setattr(learner, attribute, own[attribute])
    for module in learner.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    learner.plan = Plan(BATCH, 10, 1.0, 1.0)
    learner.generator = lambda stream=0: torch.Generator().manual_seed(0)  # type: ignore[method-assign]
    learner.process, learner.processes, learner.step_index = rank, processes, 5
    batch = learner.draw(BATCH, 5)
    for rows in batch.values():
        if "mask" in rows:
            rows["mask"][rows["mask"] == 1] = 255  # so that one process knows more pixels than the other
    loss = learner.step(batch)
    loss.backward()
    gradients = {key: p.grad for key, p in learner.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients}


def child(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for case in cases(LEARNERS):
        mine = outcome(case, rank, 2)
        for values in mine.values():
            dist.all_reduce(values)
            values /= 2
        if rank == 0:
            torch.save(mine, folder / f"{called(case)}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made of every learner, averaged as DistributedDataParallel averages gradients."""
    folder = tmp_path_factory.mktemp("processes")
    children = []
    for rank in range(2):
        process = os.fork()
        if not process:
            try:
                child(rank, folder)
            except BaseException:
                (folder / f"{rank}.txt").write_text(traceback.format_exc())
            finally:
                os._exit(0)
        children.append(process)
    for process in children:
        os.waitpid(process, 0)
    said = "".join(path.read_text() for path in folder.glob("*.txt"))
    assert not said, said
    return folder


@pytest.mark.parametrize("case", cases(LEARNERS), ids=called)
def test_two_processes_equal_one(case: Case, together: Path) -> None:
    two = torch.load(together / f"{called(case)}.pt", weights_only=True)
    one = outcome(case, 0, 1)
    assert two.keys() == one.keys()
    for key in one:
        torch.testing.assert_close(two[key], one[key], atol=1e-5, rtol=1e-4, msg=lambda m, key=key: f"{key}: {m}")
