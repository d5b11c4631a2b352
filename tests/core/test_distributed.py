"""Two processes must train as one does on both halves of the batch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from rushlight.core.distributed import all_gather, all_sum, world_size
from rushlight.losses.redundancy import barlow_twins, barlow_twins_by_columns, vicreg, vicreg_by_columns

OBJECTIVES = [barlow_twins, barlow_twins_by_columns, vicreg, vicreg_by_columns]
WORKER = """
import sys, torch, torch.distributed as dist
from rushlight.core.distributed import all_gather, all_sum
from rushlight.losses import redundancy
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
out = {}
for dim in (5, 40):
    a, b = torch.load(f"{folder}/in{dim}.pt", weights_only=True)
    weights = torch.eye(dim, dtype=torch.float64, requires_grad=True)
    mine = slice(rank * 8, rank * 8 + 8)
    for name in ("barlow_twins", "barlow_twins_by_columns", "vicreg", "vicreg_by_columns"):
        loss = getattr(redundancy, name)(a[mine] @ weights, b[mine] @ weights)
        gradient, = torch.autograd.grad(loss, weights)
        dist.all_reduce(gradient)  # as DistributedDataParallel does: the average of the workers' gradients
        out[name, dim] = loss.detach(), gradient / 2
x = torch.full((2, 1), rank + 1.0, requires_grad=True)
out["gather"] = all_gather(x).detach()
out["gather_gradient"], = torch.autograd.grad((all_gather(x) * torch.arange(4.0)[:, None]).sum(), x)
out["sum"] = all_sum(x).detach()
out["sum_gradient"], = torch.autograd.grad(((rank + 1) * all_sum(x)).sum(), x)
torch.save(out, f"{folder}/out{rank}.pt")
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    generator = torch.Generator().manual_seed(0)
    data = {dim: torch.randn(2, 16, dim, generator=generator, dtype=torch.float64) for dim in (5, 40)}
    for dim, (a, b) in data.items():
        torch.save((a, b), folder / f"in{dim}.pt")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-c", WORKER]
    running = [subprocess.Popen([*command, str(rank), str(folder)], env=environment) for rank in range(2)]
    assert [process.wait(120) for process in running] == [0, 0]
    return data, [torch.load(folder / f"out{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("dim", [5, 40])
def test_two_workers_have_the_loss_and_gradient_of_the_whole_batch(workers, dim, objective):
    data, outs = workers
    weights = torch.eye(dim, dtype=torch.float64, requires_grad=True)
    loss = objective(data[dim][0] @ weights, data[dim][1] @ weights)
    gradient = torch.autograd.grad(loss, weights)[0]
    for out in outs:
        torch.testing.assert_close(out[objective.__name__, dim][0], loss.detach(), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(out[objective.__name__, dim][1], gradient, rtol=1e-9, atol=1e-9)


def test_sums_and_concatenations_pass_every_workers_gradient(workers):
    for rank, out in enumerate(workers[1]):
        assert out["gather"].flatten().tolist() == [1, 1, 2, 2]
        assert out["gather_gradient"].flatten().tolist() == ([0, 2] if rank == 0 else [4, 6])
        assert out["sum"].flatten().tolist() == [3, 3]
        assert out["sum_gradient"].flatten().tolist() == [3, 3]


def test_alone_both_return_their_argument():
    x = torch.ones(3, 2)
    assert world_size() == 1
    assert all_sum(x) is x
    assert all_gather(x) is x
