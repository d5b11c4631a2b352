"""Linear probes beside scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from margins import Margin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST
from rushlight.data.synthetic import fashion
from rushlight.measure import linear, mistakes
from rushlight.measure.features import pooled, standardise
from rushlight.nets import encoders
from rushlight.run.model import Model, ModelInfo


def model_of(name: str = "conv16", size: int = 28) -> Model:
    return Model(encoders.create(name, image_size=size, seed=0), {}, ModelInfo(image_size=(size, size))).eval()


@pytest.fixture(scope="module")
def read() -> tuple[torch.Tensor, ...]:
    """Untrained features of 800 training and 1,000 test photos, with their classes."""
    photos, model = fashion.load(), model_of()
    train, test = photos.select(torch.arange(800)), photos.fold(TEST).select(torch.arange(1000))
    return (*(pooled(model, part["image"]) for part in (train, test)), train["class"], test["class"])


def clusters(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    centres = torch.randn(4, 6, generator=torch.Generator().manual_seed(9))
    return centres[labels] + 0.9 * torch.randn(n, 6, generator=generator), labels


def test_a_probe_that_did_not_converge_is_an_error():
    bank, labels = clusters(200)
    with pytest.raises(UserError, match=r"200×6 features did not converge in 3 iterations: choose a smaller C than 1$"):
        linear.fit(bank, labels, iterations=3)


def test_the_protocol_probe_is_within_half_a_point_of_logistic_regression_on_clusters():
    (bank, labels), (queries, true) = clusters(400), clusters(2000, 1)
    seen, asked = standardise(bank, queries)
    oracle = LogisticRegression(C=1e3, max_iter=1000).fit(seen.numpy(), labels.numpy())
    expected = oracle.score(asked.numpy(), true.numpy())
    found = linear.protocol(bank, labels)(queries).argmax(1)
    assert float((found == true).float().mean()) == pytest.approx(expected, abs=0.005)


def test_the_protocol_probe_on_photos_is_about_as_good_as_logistic_regression(read, margin: Margin):
    bank, queries, labels, true = read
    expected = linear.accuracy(bank, labels, queries, true)
    found = float((linear.protocol(bank, labels)(queries).argmax(1) == true).float().mean())
    margin("accuracy less logistic regression's", found - expected, -0.03)
    margin("accuracy", found, 0.6)


def test_lars_moves_as_the_paper_sets_it(read, margin: Margin):
    bank, queries, labels, true = read
    slow = linear.protocol(bank, labels, optimiser="lars", epochs=20)
    fast = linear.protocol(bank, labels, optimiser="lars", learning_rate=60.0, epochs=90)
    scores = [float((found(queries).argmax(1) == true).float().mean()) for found in (slow, fast)]
    margin("accuracy at the paper's rate", scores[0], 0.15)
    margin("gain by a higher rate", scores[1] - scores[0], 0.0)


def test_the_probe_learns_tags_and_passes_over_unknown_ones(margin: Margin):
    bank, labels = clusters(300)
    queries, true = clusters(300, 1)
    tags, asked = (torch.stack([v == 0, v >= 2], 1).to(torch.int8) for v in (labels, true))
    hidden = tags.clone()
    hidden[::2, 0] = -1
    found = {"all": tags, "half": hidden}
    found = {name: linear.tag_score(bank, given, queries, asked) for name, given in found.items()}
    for name, score in found.items():
        margin(f"mAP, {name} known", score, 0.7)
    wrong = hidden.clone()
    wrong[::2, 0] = 1 - tags[::2, 0]
    margin("loss by wrong tags", found["half"] - linear.tag_score(bank, wrong, queries, asked), 0.1)


def test_a_constant_feature_changes_no_probe(read):
    bank, queries, labels, _ = read
    wider, asked = (torch.cat([values, torch.full((len(values), 1), 7.0)], 1) for values in (bank, queries))
    before = linear.fit(bank, labels).predict_proba(queries.numpy())
    after = linear.fit(wider, labels).predict_proba(asked.numpy())
    np.testing.assert_allclose(before, after, atol=2e-3)
    one, two = standardise(bank, queries), standardise(wider, asked)
    torch.testing.assert_close(two[1][:, :-1], one[1])
    assert (two[0][:, -1] == 0).all()


def test_folds_and_features_as_they_are_agree_with_scikit_learn() -> None:
    bank, labels = clusters(200)
    oracle = LogisticRegression(C=0.5, max_iter=1000)
    given = ((3 * bank).double().numpy(), labels.numpy())
    plain = linear.fit(3 * bank, labels, c=0.5, scaled=False)
    np.testing.assert_allclose(plain.predict_proba(given[0]), oracle.fit(*given).predict_proba(given[0]), atol=1e-6)
    folds = cross_val_score(make_pipeline(StandardScaler(), oracle), *given, cv=5)
    assert linear.folded_accuracy(3 * bank, labels, c=0.5) == pytest.approx(folds.mean())


def test_no_fold_may_end_before_it_has_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, labels = clusters(200)
    short = linear.regression(iterations=3)
    monkeypatch.setattr(linear, "regression", lambda **settings: short)
    with pytest.raises(UserError, match="did not converge"):
        linear.folded_accuracy(bank, labels)
    with pytest.raises(UserError, match="did not converge"):
        mistakes.out_of_sample(bank.double().numpy(), labels.numpy())
