from __future__ import annotations

import torch
from margins import Margin

from rushlight.data.columns import encode_text
from rushlight.nets import encoders
from rushlight.nets.encoders.text import FACTOR, NGrams


def encoder() -> NGrams:
    made = encoders.create("ngram64", seed=0)
    assert isinstance(made, NGrams)
    return made.eval()


def slow_rows(text: str, buckets: int, longest: int) -> list[int]:
    """The hashes of all n-grams of a text, one by one."""
    data = text.lower().encode()
    rows = []
    for n in range(1, longest + 1):
        for start in range(len(data) - n + 1):
            row = n
            for byte in data[start : start + n]:
                row = (row * FACTOR + byte) % buckets
            rows.append(row)
    return rows


def test_features_are_those_of_the_mean_of_the_ngrams_embeddings() -> None:
    made, texts = encoder(), ["A red bag", "né 신발", "x"]
    found = made(encode_text(texts))
    for text, row in zip(texts, found, strict=True):
        mean = made.embedding.weight[slow_rows(text, made.buckets, made.longest)].mean(0)
        torch.testing.assert_close(row, mean + made.refine(mean))


def test_padding_and_neighbours_change_nothing() -> None:
    made = encoder()
    alone, among = made(encode_text(["shoe"])), made(encode_text(["shoe", "a much longer caption than that"]))
    torch.testing.assert_close(alone[0], among[0])


def test_an_empty_text_is_finite_and_differs_from_others() -> None:
    made = encoder()
    empty, full = made(encode_text(["", "shoe"]))
    assert empty.isfinite().all()
    assert not torch.allclose(empty, full)


def test_it_learns_to_tell_words_apart_in_texts_that_it_never_saw(margin: Margin) -> None:
    """Which of two words stands among random letters: chance is 0.5; 40 texts of test, so its spread is 0.08."""
    generator = torch.Generator().manual_seed(0)

    def texts(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(n) % 2
        letters = torch.randint(97, 123, (n, 2, 6), generator=generator).tolist()
        found = [f"{bytes(a).decode()} {('dress', 'sneaker')[y]} {bytes(b).decode()}"
                 for (a, b), y in zip(letters, labels.tolist(), strict=True)]  # fmt: skip
        return encode_text(found), labels

    made = encoder().train()
    head = torch.nn.Linear(made.width, 2)
    optimiser = torch.optim.AdamW([*made.parameters(), *head.parameters()], lr=1e-2)
    seen, labels = texts(40)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(head(made(seen)), labels).backward()
        optimiser.step()
    unseen, true = texts(40)
    margin("accuracy", (head(made.eval()(unseen)).argmax(1) == true).float().mean(), 0.9)
