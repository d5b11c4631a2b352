from __future__ import annotations

import json

import torch
from margins import Margin

from rushlight.methods.labels.pu_mlc.decoupling import Decoupling, cooccurrence
from rushlight.nets.heads import describe, rebuild


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def head(outputs=3, width=5, seed=0, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Decoupling(width=width, outputs=outputs, **settings)


def test_cooccurrence_is_the_share_among_images_that_show_the_row():
    present = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0]]).bool()
    third = 1 / 3
    want = [[1, 2 * third, third, 0], [2 * third, 1, third, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(cooccurrence(present), torch.tensor(want))


def test_each_classs_vector_equals_plain_loops():
    part, maps = head(features=5, joint=6, embedding=4).double().eval(), draw(2, 5, 2, 3)
    got, reduced = part.decouple(maps), part.reduce(maps)
    for b in range(2):
        for c in range(3):
            cells = [reduced[b, :, i, j] for i in range(2) for j in range(3)]
            word = part.names.weight @ part.classes[c] + part.names.bias
            scores = []
            for x in cells:
                joint = torch.tanh((part.places.weight @ x + part.places.bias) * word)
                scores.append((part.attend.weight[0] @ joint + part.attend.bias[0]).exp())
            want = sum(s * x for s, x in zip(scores, cells)) / sum(scores)
            torch.testing.assert_close(got[b, c], want)


def test_a_step_on_the_graph_equals_plain_loops():
    graph = draw(3, 3, seed=1)
    part, state = head(features=4, graph=graph).double(), draw(2, 3, 4)
    got = part.pass_on(state)
    for b in range(2):
        for i in range(3):
            forth = sum(graph[i, j] * state[b, j] for j in range(3))
            back = sum(graph[j, i] * state[b, j] for j in range(3))
            heard = torch.cat([forth, back])
            gates = part.gates.weight @ torch.cat([heard, state[b, i]]) + part.gates.bias
            update, reset = gates.sigmoid().chunk(2)
            candidate = part.candidate.weight @ torch.cat([heard, reset * state[b, i]]) + part.candidate.bias
            want = (1 - update) * state[b, i] + update * candidate.tanh()
            torch.testing.assert_close(got[b, i], want)


def test_classes_talk_only_along_the_graph():
    graph = torch.eye(3)
    graph[0, 1] = 0.5
    part, state = head(features=4, graph=graph).double(), draw(1, 3, 4)
    moved = state.clone()
    moved[:, 2] += 1
    change = (part.pass_on(state) - part.pass_on(moved)).abs().sum(2)[0]
    assert change[:2].tolist() == [0, 0]
    assert change[2] > 0
    moved = state.clone()
    moved[:, 1] += 1
    change = (part.pass_on(state) - part.pass_on(moved)).abs().sum(2)[0]
    assert change[0] > 0
    assert change[2] == 0


def test_the_head_learns_which_class_is_where(margin: Margin):
    """Class c is a bump in channel c at a random cell; about half of six classes an image."""
    part = head(outputs=6, width=6, features=16, embedding=8, joint=16)
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(128, 6, generator=generator) > 0.5
    maps = 0.3 * torch.randn(128, 6, 4, 4, generator=generator)
    at = torch.randint(16, (128, 6), generator=generator)
    maps.flatten(2).scatter_add_(2, at[..., None], labels.float()[..., None] * 4)
    optimiser = torch.optim.Adam(part.parameters(), 0.02)

    def accuracy():
        return ((part.eval()(maps) > 0) == labels).float().mean()

    margin("accuracy before", accuracy(), 0.7, below=True)
    for _ in range(80):
        part.train()
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(part(maps), labels.float()).backward()
        optimiser.step()
    margin("accuracy after", accuracy(), 0.9)


def test_the_graph_travels_with_the_state_not_with_the_description():
    graph = cooccurrence(torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) > 0.5)
    first, maps = head(graph=graph, joint=8).eval(), draw(2, 5, 3, 3).float()
    fresh = rebuild(json.loads(json.dumps(describe(first)))).eval()
    assert not torch.equal(fresh(maps), first(maps))
    fresh.load_state_dict(first.state_dict())
    assert torch.equal(fresh(maps), first(maps))
