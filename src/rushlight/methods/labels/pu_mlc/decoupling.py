"""Semantic decoupling: a vector for each class, gathered where the class is, and a graph between the classes.

For class c with embedding v_c, attention over the cells x of the last feature map,

    a_c = softmax over cells of w · tanh(W₁ x ⊙ W₂ v_c),   s_c = Σ a_c x,

gives a vector for each class. A gated graph network passes these along the classes' co-occurrence for three
steps, h ← GRU(h, [A h, Aᵀ h]), and each class answers by its own linear map of tanh(W [h; s]).
Chen et al., "Learning Semantic-Specific Graph Representation", arXiv:1908.07325; as PU-MLC uses it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rushlight.nets.heads import Head


class Decoupling(Head):
    """Feature maps → a logit for each class.

    Args:
        width: channels of the maps; outputs: number of classes.
        features: size of each class's vector; None takes the width, at most 1024.
        joint: size in which places and classes meet; None takes `features`, at most 512.
        embedding: size of a class's embedding, which is learned.
        steps: of the graph network.
        graph: the classes' co-occurrence (see `cooccurrence`); kept with the weights, so not needed to rebuild.
    """

    reads = "maps"
    graph: Tensor

    def __init__(
        self,
        *,
        width: int,
        outputs: int,
        features: int | None = None,
        joint: int | None = None,
        embedding: int = 300,
        steps: int = 3,
        graph: Float[Tensor, "outputs outputs"] | None = None,
    ):
        super().__init__()
        features = features or min(width, 1024)
        joint = joint or min(features, 512)
        self.config = {
            "width": width,
            "outputs": outputs,
            "features": features,
            "joint": joint,
            "embedding": embedding,
            "steps": steps,
        }
        self.steps = steps
        self.reduce = nn.Sequential(nn.Conv2d(width, features, 1, bias=False), nn.BatchNorm2d(features))
        self.classes = nn.Parameter(torch.randn(outputs, embedding) / embedding**0.5)
        self.places, self.names = nn.Linear(features, joint), nn.Linear(embedding, joint)
        self.attend = nn.Linear(joint, 1)
        self.gates = nn.Linear(3 * features, 2 * features)
        self.candidate = nn.Linear(3 * features, features)
        self.output = nn.Linear(2 * features, features)
        self.weight = nn.Parameter(torch.randn(outputs, features) / features**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("graph", torch.eye(outputs) if graph is None else graph.clone())

    def forward(self, maps: Float[Tensor, "batch width h w"]) -> Float[Tensor, "batch outputs"]:
        vectors = self.decouple(maps)
        state = vectors
        for _ in range(self.steps):
            state = self.pass_on(state)
        answer = self.output(torch.cat([state, vectors], -1)).tanh()
        return (answer * self.weight).sum(-1) + self.bias

    def decouple(self, maps: Float[Tensor, "batch width h w"]) -> Float[Tensor, "batch outputs features"]:
        """Return each class's vector: the mean of the cells it attends to."""
        cells = self.reduce(maps).flatten(2).mT
        meeting = (self.places(cells)[:, None] * self.names(self.classes)[:, None]).tanh()
        attention = self.attend(meeting).squeeze(-1).softmax(-1)
        return attention.to(cells.dtype) @ cells

    def pass_on(self, state: Float[Tensor, "batch outputs features"]) -> Float[Tensor, "batch outputs features"]:
        """Return the state after one step of the gated graph network."""
        graph = self.graph.to(state.dtype)
        heard = torch.cat([graph @ state, graph.mT @ state], -1)
        update, reset = self.gates(torch.cat([heard, state], -1)).sigmoid().chunk(2, -1)
        candidate = self.candidate(torch.cat([heard, reset * state], -1)).tanh()
        return torch.lerp(state.to(candidate.dtype), candidate, update.to(candidate.dtype))


def cooccurrence(present: Bool[Tensor, "n classes"]) -> Float[Tensor, "classes classes"]:
    """Return how often class j is present where class i is: counts, each row divided by its diagonal entry."""
    counts = present.float().T @ present.float()
    return counts / counts.diagonal().clamp(min=1)[:, None]
