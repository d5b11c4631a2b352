"""On a GPU: every method learns every task that it names, in half precision too, and memory that runs out is no end.

These tests skip themselves where there is none; `pytest tests/test_gpu.py` on a machine with one runs them all.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cases import ATTACKS, LEARNERS, STAGES, Case, called, cases, example, prepared, run, trained, training

from rushlight import tasks
from rushlight.core.catalogue import load_method
from rushlight.data.dataset import Dataset
from rushlight.jobs.compare.run import compare
from rushlight.methods.baseline.supervised import Supervised
from rushlight.nets import encoders
from rushlight.run import hardware
from rushlight.run.budget import Budget
from rushlight.run.evaluate import evaluate
from rushlight.run.model import Model
from rushlight.run.stage import RunContext, Threat

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

PRECISIONS = ["32-true", "bf16-mixed"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", cases(LEARNERS), ids=called)
def test_a_step_reaches_every_parameter_that_it_reaches_on_a_cpu(case: Case, precision: str) -> None:
    reached = {}
    for device in ("cpu", "cuda"):
        learner = prepared(case, device=device, precision=precision)
        learner.plan = learner.plan_for(Budget(passes=400))
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = learner.step(learner.draw(learner.plan.batch, 0))
        assert loss.device.type == device
        assert loss.isfinite()
        loss.backward()
        gradients = {name: p.grad for name, p in learner.model.named_parameters() if p.grad is not None}
        assert all(bool(g.isfinite().all()) for g in gradients.values())
        reached[device] = set(gradients)
    assert reached["cpu"] == reached["cuda"]


@pytest.mark.parametrize("case", cases(STAGES), ids=called)
def test_trained_there_it_comes_back_and_predicts_the_same_here(case: Case) -> None:
    precision = hardware.precision("cuda")
    data, model, outcome = run(case, device="cuda", precision=precision)
    assert {p.device.type for p in model.parameters()} <= {"cpu"}
    assert all(bool(values.isfinite().all()) for values in model.state_dict().values() if values.is_floating_point())
    assert outcome.spent.passes == pytest.approx(
        trained(case)[2].spent.passes, rel=0.1
    )  # iBOT's masks cost what is drawn
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    here = model.predict(data, rows=torch.arange(8))
    there = model.to("cuda").predict(data, rows=torch.arange(8))
    for name, values in here.items():
        scale = values.abs().max().clamp(min=1)
        torch.testing.assert_close(there[name] / scale, values / scale, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("task", tasks.names())
def test_a_model_scores_the_same_on_both(task: str) -> None:
    data = example(task)
    _, model, _ = trained(("supervised", task))
    here = evaluate(model, data, task).value
    there = evaluate(model.copy().to("cuda"), data, task).value
    assert there == pytest.approx(here, abs=0.02)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_runs_there(name: str) -> None:
    data, model, _ = trained(("supervised", "class"))
    images, labels = data["image"][:8].cuda().float() / 255, data["class"][:8].clamp(min=0).cuda()
    attacked = model.copy().eval().to("cuda")
    adversarial = load_method(name)().perturb(attacked.logits, images, labels, Threat())
    assert adversarial.device.type == "cuda"
    assert adversarial.isfinite().all()


def test_real_memory_that_runs_out_halves_the_batch() -> None:
    data = training("class")
    model = Model(encoders.create("conv32", image_size=data.height, seed=0))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    free = 0.02 * total
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + free) / total)
    try:
        with pytest.warns(UserWarning, match="out of memory"):
            outcome = Supervised(batch=65_536).run(
                data, model, RunContext(budget=Budget(passes=200_000), device="cuda")
            )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert outcome.findings is not None


def test_a_comparison_ranks_and_resumes(photos: Dataset, tmp_path: Path) -> None:
    arguments = {"budget": "2k", "seeds": 2, "out": tmp_path / "out", "device": "cuda"}
    board = compare(photos, "supervised, fixmatch", **arguments)
    assert not board.failed
    again = compare(photos, "supervised, fixmatch", **arguments)
    assert again.verdict == board.verdict
