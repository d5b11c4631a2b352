"""The judges' common ground beside scikit-learn, torchmetrics and the official code's formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

from rushlight.data.columns import TEST
from rushlight.data.synthetic import fashion, scenes
from rushlight.measure import probe
from rushlight.measure.preprocessing import Preprocessing, Reader, resize
from rushlight.methods.evaluate.backbones import corruptions, dense_probe, few_label, retrieval
from rushlight.nets import baselines, encoders
from rushlight.run.model import Model, ModelInfo


def model_of(name: str = "conv16", size: int = 28) -> Model:
    return Model(encoders.create(name, image_size=size, seed=0), {}, ModelInfo(image_size=(size, size))).eval()


@pytest.fixture(scope="module")
def read() -> tuple[torch.Tensor, ...]:
    """Untrained features of 800 training and 1,000 test photos, with their classes."""
    photos, model = fashion.load(), model_of()
    train, test = photos.select(torch.arange(800)), photos.fold(TEST).select(torch.arange(1000))
    return (*(probe.features(model, part["image"]) for part in (train, test)), train["class"], test["class"])


def clusters(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    centres = torch.randn(4, 6, generator=torch.Generator().manual_seed(9))
    return centres[labels] + 0.9 * torch.randn(n, 6, generator=generator), labels


# --- the contract ---


def test_the_order_is_unit_then_size_then_normalisation():
    images = torch.randint(0, 256, (3, 3, 10, 14), dtype=torch.uint8)
    contract = Preprocessing(size=20, unit=255, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), antialias=False)
    expected = F.interpolate(images.float() / 255, (20, 28), mode="bilinear", align_corners=False)
    expected = (expected - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    torch.testing.assert_close(contract(images), expected)


def test_a_resize_to_the_same_size_changes_nothing():
    images = torch.rand(2, 3, 12, 9)
    for how in ("bilinear", "bicubic", "nearest"):
        assert resize(images, 9, how) is images
    assert Preprocessing().resize(images) is images


def test_the_flags_of_a_resize_are_part_of_the_contract_since_they_change_it():
    noise = torch.rand(2, 3, 32, 32)
    plain = Preprocessing(size=8, antialias=False)
    for other in (replace(plain, antialias=True), replace(plain, align_corners=True)):
        assert (plain.resize(noise) - other.resize(noise)).abs().max() > 0.2
    with pytest.raises(ValueError, match="antialias"):
        Preprocessing(align_corners=True)
    assert "aligned corners" in str(replace(plain, align_corners=True))


def test_an_encoders_own_contract_gives_its_own_features():
    model, images = model_of(), fashion.load()["image"][:20]
    own = Reader(model).features(images)
    torch.testing.assert_close(own, probe.features(model, images), rtol=1e-4, atol=1e-5)
    other = Reader(model, replace(Preprocessing.of(model), mean=(0.0,) * 3, std=(1.0,) * 3)).features(images)
    model.encoder.mean.zero_()
    model.encoder.std.fill_(1)
    torch.testing.assert_close(other, probe.features(model, images), rtol=1e-4, atol=1e-5)


def test_timms_weights_bring_their_interpolation():
    model = model_of("vit_tiny_patch16_224", 32)
    model.encoder.model.pretrained_cfg = {"interpolation": "bicubic"}
    assert Preprocessing.of(model).interpolation == "bilinear"
    assert Preprocessing.of(model.with_info(recipe="timm's weights augreg")).interpolation == "bicubic"


def test_a_reader_reads_each_set_once_and_pools_as_told(monkeypatch):
    model, images = model_of("vit64", 28), fashion.load()["image"][:10]
    reader = Reader(model, replace(Preprocessing.of(model), pooling="mean"))
    first = reader.features(images)
    torch.testing.assert_close(first, reader.maps(images).mean((2, 3)))
    monkeypatch.setattr(reader, "_pass", None)
    assert reader.features(images.clone()) is first
    with pytest.raises(TypeError):
        reader.features(images[:5])


# --- neighbours ---


def test_euclidean_neighbours_are_scikit_learns():
    bank, labels = clusters(120)
    queries, _ = clusters(300, 1)
    expected = KNeighborsClassifier(5).fit(bank.numpy(), labels.numpy()).predict(queries.numpy())
    assert np.array_equal(probe.euclidean_neighbours(bank, labels, queries, k=5).numpy(), expected)


def test_a_bank_that_asks_itself_leaves_each_image_out():
    bank, labels = clusters(40)
    for row in range(40):
        others = torch.arange(40) != row
        expected = probe.euclidean_neighbours(bank[others], labels[others], bank[row : row + 1], k=3)
        assert probe.euclidean_neighbours(bank, labels, k=3)[row] == expected[0]
    assert probe.nearest_tags(bank[:3], torch.ones(3, 2, dtype=torch.int8), k=5).tolist() == [[1, 1]] * 3


def test_data_are_divided_by_their_folds_or_anew():
    photos = fashion.load()
    train, test = probe.divided(photos, "class")
    assert (len(train), len(test)) == (12_000, 2_000)
    train, test = probe.divided(photos.fold(TEST), "class")
    assert (len(train), len(test)) == (1_500, 500)
    assert "fold" in train


def test_tags_of_the_nearest_are_counted_where_they_are_known():
    bank, _ = clusters(40)
    queries, _ = clusters(10, 1)
    tags = torch.randint(-1, 2, (40, 3), generator=torch.Generator().manual_seed(0))
    found = probe.nearest_tags(bank, tags, queries, k=5)
    for query, row in zip(queries, found, strict=True):
        near = (bank.double() - query.double()).norm(dim=1).argsort()[:5]
        for tag in range(3):
            known = [int(tags[i, tag]) for i in near if tags[i, tag] >= 0]
            assert row[tag] == pytest.approx(sum(known) / max(len(known), 1))


def test_cosine_votes_are_those_of_plain_loops():
    bank, labels = clusters(30)
    queries, _ = clusters(5, 1)
    votes = probe.neighbours(bank, labels, queries, k=7, temperature=0.1)
    for query, row in zip(queries.double(), votes, strict=True):
        cosine = [float(F.cosine_similarity(query, value.double(), dim=0)) for value in bank]
        expected = np.zeros(4)
        for i in sorted(range(30), key=lambda i: -cosine[i])[:7]:
            expected[labels[i]] += np.exp(cosine[i] / 0.1)
        np.testing.assert_allclose(row.numpy(), expected, rtol=1e-4)


# --- probes ---


def test_the_protocol_probe_is_within_half_a_point_of_logistic_regression_on_clusters():
    (bank, labels), (queries, true) = clusters(400), clusters(2000, 1)
    seen, asked = probe.standardise(bank, queries)
    oracle = LogisticRegression(C=1e3, max_iter=1000).fit(seen.numpy(), labels.numpy())
    expected = oracle.score(asked.numpy(), true.numpy())
    found = probe.protocol_probe(bank, labels)(queries).argmax(1)
    assert float((found == true).float().mean()) == pytest.approx(expected, abs=0.005)


def test_the_protocol_probe_on_photos_is_about_as_good_as_logistic_regression(read):
    bank, queries, labels, true = read
    expected = probe.linear_accuracy(bank, labels, queries, true)
    found = float((probe.protocol_probe(bank, labels)(queries).argmax(1) == true).float().mean())
    assert found == pytest.approx(expected, abs=0.03)
    assert found > 0.6


def test_lars_moves_as_the_paper_sets_it(read):
    bank, queries, labels, true = read
    slow = probe.protocol_probe(bank, labels, optimiser="lars", epochs=20)
    fast = probe.protocol_probe(bank, labels, optimiser="lars", learning_rate=60.0, epochs=90)
    scores = [float((found(queries).argmax(1) == true).float().mean()) for found in (slow, fast)]
    assert 0.15 < scores[0] < scores[1]


def test_a_constant_feature_changes_no_probe(read):
    bank, queries, labels, _ = read
    wider, asked = (torch.cat([values, torch.full((len(values), 1), 7.0)], 1) for values in (bank, queries))
    before = probe.linear_probe(bank, labels).predict_proba(queries.numpy())
    after = probe.linear_probe(wider, labels).predict_proba(asked.numpy())
    np.testing.assert_allclose(before, after, atol=2e-3)
    one, two = probe.standardise(bank, queries), probe.standardise(wider, asked)
    torch.testing.assert_close(two[1][:, :-1], one[1])
    assert (two[0][:, -1] == 0).all()


def test_the_probe_learns_tags_and_passes_over_unknown_ones():
    bank, labels = clusters(300)
    queries, true = clusters(300, 1)
    tags, asked = (torch.stack([v == 0, v >= 2], 1).to(torch.int8) for v in (labels, true))
    hidden = tags.clone()
    hidden[::2, 0] = -1
    for given in (tags, hidden):
        assert probe.tag_probe(bank, given, queries, asked) > 0.8
    wrong = hidden.clone()
    wrong[::2, 0] = 1 - tags[::2, 0]
    assert probe.tag_probe(bank, wrong, queries, asked) < probe.tag_probe(bank, hidden, queries, asked)


# --- retrieval ---


def plain_ap(order: list[bool], oxford: bool) -> float:
    """The two forms as loops over the ranking; the second as in `compute_ap` of the official code."""
    wanted, total, seen = sum(order), 0.0, 0
    for rank, hit in enumerate(order):
        if hit:
            before = 1.0 if rank == 0 else seen / rank
            after = (seen + 1) / (rank + 1)
            total += (before + after) / 2 if oxford else after
            seen += 1
    return total / wanted


def test_average_precision_in_both_forms():
    from torchmetrics.retrieval import RetrievalMAP

    generator = torch.Generator().manual_seed(0)
    gallery, queries = torch.randn(50, 8, generator=generator), torch.randn(12, 8, generator=generator)
    positive = torch.rand(12, 50, generator=generator) < 0.2
    positive[3] = False
    found = retrieval.retrieve(gallery, queries, positive)
    cosine = F.normalize(queries, dim=1) @ F.normalize(gallery, dim=1).T
    kept = [i for i in range(12) if i != 3]
    orders = [positive[i][cosine[i].argsort(descending=True)].tolist() for i in kept]
    assert found.mean_ap == pytest.approx(np.mean([plain_ap(order, False) for order in orders]))
    assert found.oxford == pytest.approx(np.mean([plain_ap(order, True) for order in orders]))
    assert found.oxford < found.mean_ap
    per_query = [average_precision_score(positive[i].numpy(), cosine[i].numpy()) for i in kept]
    assert found.mean_ap == pytest.approx(np.mean(per_query))
    metric = RetrievalMAP(empty_target_action="skip")  # it passes over what scores no more than 0
    indexes = torch.arange(12)[:, None].expand(-1, 50)
    assert found.mean_ap == pytest.approx(float(metric(cosine + 1, positive, indexes=indexes)), abs=1e-6)
    first = [order.index(True) for order in orders]
    assert found.recall == {k: pytest.approx(np.mean([f < k for f in first])) for k in (1, 5, 10)}
    assert found.mrr == pytest.approx(np.mean([1 / (f + 1) for f in first]))
    assert found.official_mrr == pytest.approx(np.sum([1 / (f + 1) for f in first]) / 12)
    assert found.queries == 11


def test_junk_leaves_the_ranking_but_not_the_official_mrr():
    gallery = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.0, 1.0]])
    positive = torch.tensor([[False, False, True, False]])
    junk = torch.tensor([[True, False, False, False]])
    found = retrieval.retrieve(gallery, torch.tensor([[1.0, 0.0]]), positive, junk)
    assert (found.mean_ap, found.oxford) == (pytest.approx(1 / 2), pytest.approx(1 / 4))
    assert (found.mrr, found.official_mrr) == (pytest.approx(1 / 2), pytest.approx(1 / 3))
    with pytest.raises(ValueError, match="no query"):
        retrieval.retrieve(gallery, torch.rand(2, 2), torch.zeros(2, 4, dtype=torch.bool))


# --- fine-tuning ---


@pytest.mark.parametrize(("name", "depth"), [("conv16", 4), ("vit64", 4), ("resnet18", 8)])
def test_the_learning_rate_falls_from_layer_to_layer(name, depth):
    network = few_label._Network(encoders.create(name, image_size=28, seed=0), Preprocessing(), 3)
    groups = few_label.decayed_groups(network, 0.5, 0.1)
    layer, last = few_label.layers(network.encoder)
    assert last == depth + 1
    scale = {id(p): group["scale"] for group in groups for p in group["params"]}
    for parameter_name, parameter in network.named_parameters():
        at = layer.get(parameter_name.removeprefix("encoder."), last)
        assert scale[id(parameter)] == pytest.approx(0.5 ** (depth + 1 - at))
    assert all(scale[id(parameter)] == 1 for parameter in network.head.parameters())
    assert min(scale.values()) == pytest.approx(0.5 ** (depth + 1 - min(layer.values())))
    assert {group["weight_decay"] for group in groups if group["params"][0].ndim == 1} == {0.0}
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_fine_tuning_learns_and_chooses_its_rate_by_training_labels_alone():
    photos, model = fashion.load(), model_of()
    train, test = photos.select(torch.arange(150)), photos.fold(TEST).select(torch.arange(300))
    before = {name: values.clone() for name, values in model.state_dict().items()}
    tuning = few_label.Tuning(rates=(1e-6, 3e-3), steps=40)
    tuned = few_label.fine_tune(model, train["image"], train["class"], tuning)
    assert tuned.rate == 3e-3
    assert set(tuned.held_out) == {1e-6, 3e-3}
    assert few_label.score(tuned.network, test["image"], test["class"]) > 0.35
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    again = few_label.fine_tune(model, train["image"], train["class"], tuning)
    assert torch.equal(again.network.head.linear.weight, tuned.network.head.linear.weight)
    learn, held = few_label._parted(train["class"], 0.25, 0)
    assert set(learn.tolist()) | set(held.tolist()) == set(range(150))
    assert set(learn.tolist()).isdisjoint(held.tolist())
    alone = few_label.fine_tune(model, train["image"][:1], torch.zeros(1, dtype=torch.long), replace(tuning, steps=1))
    assert alone.held_out == {}


def test_the_papers_views_and_tags_train_too():
    data, model = scenes.compose(40, size=32, seed=0), model_of(size=32)
    strong = few_label.Tuning(rates=(1e-3,), steps=5, batch=16, strong=True)
    for targets in (data["class"], data["tags"]):
        tuned = few_label.fine_tune(model, data["image"], targets, strong)
        assert 0 <= few_label.score(tuned.network, data["image"], targets) <= 1


# --- dense tasks ---


def test_a_linear_decoder_reads_classes_that_lie_in_the_map():
    masks = torch.randint(0, 3, (60, 6, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    maps = F.one_hot(masks.long(), 3).permute(0, 3, 1, 2).float() + 0.1
    masks[:, 0, 0] = 255
    decoder = dense_probe.segmentation(maps[:40], masks[:40], 3)
    assert dense_probe.mask_score(decoder, maps[40:], masks[40:], 3) > 0.99
    noise = torch.randn(60, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    assert dense_probe.mask_score(dense_probe.segmentation(noise, masks, 3), noise.flip(0), masks, 3) < 0.5


def planted(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps of 8×8 cells in which a box's cell holds its class and its half-sides; and the boxes on 64×64 pixels."""
    generator = torch.Generator().manual_seed(seed)
    maps, boxes = 0.02 * torch.randn(n, 4, 8, 8, generator=generator), torch.zeros(n, 1, 6)
    row, column, label = (torch.randint(2, 6, (n,), generator=generator) for _ in range(3))
    label, half = label % 2, torch.randint(8, 16, (n,), generator=generator).float()
    every = torch.arange(n)
    maps[every, label, row, column] += 1
    maps[every, 2, row, column] = half / 16
    x, y = 8 * column + 4.0, 8 * row + 4.0
    boxes[:, 0] = torch.stack([x - half, y - half, x + half, y + half, label.float(), torch.ones(n)], 1)
    return maps, boxes


def test_a_centre_head_finds_planted_boxes():
    (maps, boxes), (other, true) = planted(200, 0), planted(60, 1)
    head = dense_probe.detection(maps, boxes, (64, 64), 2)
    found = dense_probe.box_score(head, other, true, (64, 64))
    assert found["AP50"] > 0.9
    assert found["AP"] > 0.5
    swapped = true.clone()
    swapped[..., 4] = 1 - swapped[..., 4]
    assert dense_probe.box_score(head, other, swapped, (64, 64))["AP50"] < 0.5


def test_boxes_are_assigned_to_the_cell_of_their_centre_the_smallest_first():
    boxes = torch.tensor([[[0, 0, 32, 16, 1, 1], [12, 4, 20, 12, 0, 1.0], [0, 0, 8, 8, 1, 0]]])
    owner, sides = dense_probe.assigned(boxes, (32, 32), (4, 4))
    assert owner[0, 1, 2] == 0
    assert (owner >= 0).sum() == 1
    centre = torch.tensor([20.0, 12.0]) / 32
    expected = [centre[0] - 12 / 32, centre[1] - 4 / 32, 20 / 32 - centre[0], 12 / 32 - centre[1]]
    torch.testing.assert_close(sides[0, 1, 2], torch.stack(expected).clamp(min=0))


def test_average_precision_of_perfect_boxes_is_one_and_torchmetrics_counts_misses():
    _, boxes = planted(10, 3)
    perfect = [{"boxes": b[:, :4], "scores": torch.ones(1), "labels": b[:, 4].long()} for b in boxes]
    assert dense_probe.average_precision(perfect, boxes) == {"AP": pytest.approx(1), "AP50": pytest.approx(1)}
    perfect[0]["boxes"] = perfect[0]["boxes"] + 40
    assert 0.7 < dense_probe.average_precision(perfect, boxes)["AP50"] < 1


def test_the_focal_loss_is_the_plain_formula():
    logits = torch.randn(20, dtype=torch.float64, requires_grad=True)
    goal = (torch.arange(20) % 3 == 0).double()
    p = logits.sigmoid()
    terms = [-0.25 * (1 - q) ** 2 * q.log() if g else -0.75 * q**2 * (1 - q).log() for q, g in zip(p, goal)]
    expected, found = torch.stack(terms), dense_probe.focal(logits, goal)
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(x.sum(), logits, retain_graph=True)[0] for x in (found, expected)]
    torch.testing.assert_close(*grads)


# --- corruptions and baselines ---


def test_corruptions_grow_with_their_severity_and_repeat():
    images = fashion.load()["image"][:30]
    for kind in corruptions.CORRUPTIONS:
        away = [
            (corruptions.corrupt(images, kind, severity=s).float() - images.float()).abs().mean() for s in (1, 3, 5)
        ]
        assert 0 < away[0] < away[1] < away[2]
        assert torch.equal(corruptions.corrupt(images, kind, seed=4), corruptions.corrupt(images, kind, seed=4))
    with pytest.raises(ValueError, match="severity"):
        corruptions.corrupt(images, "blur", severity=6)


def test_statistics_of_a_constant_image():
    found = baselines.statistics(torch.full((1, 2, 5, 5), 0.3))
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.3, 0, 0, 0.3, 0.3, 0.3, 0.3]]), atol=1e-7, rtol=1e-6)
    image = torch.rand(1, 1, 4, 4)
    pixels = image.flatten().numpy()
    expected = [pixels.mean(), pixels.std(ddof=1), pixels.max(), pixels.min()]
    np.testing.assert_allclose(baselines.statistics(image)[0].numpy(), expected, rtol=1e-5)


def test_random_features_are_torchgeos():
    """The formula of torchgeo.models.RCF: the second half is the ReLU of the negative, its bias negated with it."""
    model, images = baselines.rcf(3, 16, seed=1), torch.rand(4, 3, 9, 9)
    found = model(images)
    for n, image in enumerate(images.double()):
        for k, weight in enumerate(model.weight.double()):
            cells = [float((image[:, y : y + 3, x : x + 3] * weight).sum()) - 1 for y in range(7) for x in range(7)]
            assert float(found[n, k]) == pytest.approx(np.mean(np.maximum(cells, 0)), rel=1e-4, abs=1e-6)
            assert float(found[n, 16 + k]) == pytest.approx(np.mean(np.maximum(np.negative(cells), 0)), rel=1e-4)


def test_whitening_is_the_official_one_and_leaves_the_stated_covariance():
    patches = torch.rand(500, 12, generator=torch.Generator().manual_seed(0)).double()
    values = patches.numpy() - patches.numpy().mean(1, keepdims=True)
    values = values / np.linalg.norm(values, axis=1, keepdims=True)
    covariance = values.T @ values / len(values)
    size, vectors = np.linalg.eigh(covariance)
    root = vectors @ np.diag((size + 0.001) ** -0.5) @ vectors.T
    found = baselines.whiten(patches).numpy()
    np.testing.assert_allclose(found, values @ root @ root.T, atol=1e-8)
    inverse = np.linalg.inv(covariance + 0.001 * np.eye(12))
    np.testing.assert_allclose(found.T @ found / len(found), inverse @ covariance @ inverse, atol=1e-6)
    assert np.isfinite(baselines.whiten(torch.zeros(5, 27)).numpy()).all()


def test_mosaiks_filters_are_patches_of_the_images():
    images = torch.rand(6, 3, 8, 8)
    model = baselines.mosaiks(images, 10, seed=3)
    assert model.weight.shape == (10, 3, 3, 3)
    assert torch.equal(model.weight, baselines.mosaiks(images, 10, seed=3).weight)
    assert not torch.equal(model.weight, baselines.mosaiks(images, 10, seed=4).weight)
    assert model(images).shape == (6, 20)


def test_purity_is_the_share_of_neighbours_of_the_same_group():
    generator = torch.Generator().manual_seed(0)
    features, groups = torch.randn(1100, 5, generator=generator), torch.randint(3, (1100,), generator=generator)
    unit = F.normalize(features, dim=1)
    shares = []
    for i in range(1100):
        others = sorted((j for j in range(1100) if j != i), key=(-(unit @ unit[i])).tolist().__getitem__)[:20]
        shares.append(np.mean([int(groups[j] == groups[i]) for j in others]))
    assert probe.purity(3 * features, groups) == pytest.approx(np.mean(shares), abs=1e-4)
    assert probe.purity(features[:4], torch.zeros(4, dtype=torch.long)) == 1.0
