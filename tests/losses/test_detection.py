import math

import pytest
import torch

from rushlight.losses.detection import centre_focal, gaussians, giou, iou


def test_bumps_by_loops():
    y, x = torch.meshgrid(torch.arange(4) + 0.5, torch.arange(5) + 0.5, indexing="ij")
    at = torch.stack([x, y]) * 4
    centre, sigma = torch.tensor([[[7.0, 9.0], [1.0, 1.0]]]), torch.tensor([[[3.0, 2.0], [1.0, 1.0]]])
    bumps = gaussians(at, centre, sigma, torch.tensor([[True, False]]))
    assert not bumps[0, 1].any()
    for row in range(4):
        for column in range(5):
            dx, dy = 4 * (column + 0.5) - 7, 4 * (row + 0.5) - 9
            want = math.exp(-(dx**2) / (2 * 9) - dy**2 / (2 * 4))
            want = 1.0 if (row, column) == (2, 1) else want  # the nearest cell
            assert float(bumps[0, 0, row, column]) == pytest.approx(want, abs=1e-6)


def test_the_focal_loss_and_its_gradient_by_loops():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    heat = torch.rand(2, 1, 3, 3, generator=generator, dtype=torch.float64)
    heat[:, 0, 1, 1] = 1
    want = [0.0, 0.0]
    for n in range(2):
        for score, wanted in zip(logits[n].flatten(), heat[n].flatten(), strict=True):
            p = 1 / (1 + (-score).exp())
            if wanted == 1:
                want[n] = want[n] - (1 - p) ** 2 * p.log()
            else:
                want[n] = want[n] - (1 - wanted) ** 4 * p**2 * (1 - p).log()
    loss = centre_focal(logits, heat)
    assert torch.allclose(loss, torch.stack(want))
    (got,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True)
    (by_loops,) = torch.autograd.grad(sum(want), logits)
    assert torch.allclose(got, by_loops)


@pytest.mark.parametrize(
    ("a", "b", "overlap", "generalised"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1, 1),
        ([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3, 1 / 3),
        ([0, 0, 1, 1], [3, 0, 4, 1], 0, -0.5),
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7, 1 / 7 - 2 / 9),
    ],
)
def test_overlaps_of_hand_made_boxes(a, b, overlap, generalised):
    a, b = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    assert float(iou(a, b)) == pytest.approx(overlap)
    assert float(giou(a, b)) == pytest.approx(generalised)
