from __future__ import annotations

import torch

from rushlight.losses.forward_gradients import with_gradients


def squares(needs, a, b):
    return a.square().sum() + b.sum(), [2 * a if needs[0] else None, torch.ones_like(b) if needs[1] else None]


def test_gradients_are_those_that_were_made_times_what_comes_from_above():
    a, b = torch.randn(3, 2, requires_grad=True), torch.randn(2, 2, requires_grad=True)
    loss = with_gradients(squares, a, b)
    torch.testing.assert_close(loss, a.square().sum() + b.sum())
    (5 * loss).backward()
    torch.testing.assert_close(a.grad, 10 * a.detach())
    torch.testing.assert_close(b.grad, 5 * torch.ones(2, 2))


def test_who_needs_none_is_told_so():
    seen = []
    a = torch.randn(3, 2, requires_grad=True)
    with_gradients(lambda needs, *x: (seen.append(needs), squares(needs, *x))[1], a, torch.randn(2, 2)).backward()
    assert seen == [(True, False)]
    with torch.no_grad():
        assert not with_gradients(squares, a, a).requires_grad


def test_a_second_backward_pass_makes_them_again():
    a = torch.randn(3, 2, requires_grad=True)
    loss = with_gradients(squares, a, torch.randn(2, 2))
    one, other = (torch.autograd.grad(loss, a, upstream, retain_graph=True)[0]
                  for upstream in (torch.tensor(2.0), torch.tensor(3.0)))  # fmt: skip
    torch.testing.assert_close(one, 4 * a.detach())
    torch.testing.assert_close(other, 6 * a.detach())
