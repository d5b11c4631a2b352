"""The atlas: neighbours lie beside each other, samples differ, and the page shows both without fetching anything."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from rushlight.data.dataset import Dataset
from rushlight.measure import atlas as charts
from rushlight.nets import encoders
from rushlight.present import atlas, plots
from rushlight.present import page as html
from rushlight.run.model import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(encoders.create("conv16", image_size=28, seed=0))


@pytest.fixture(scope="module")
def chart(model: Model, photos: Dataset) -> charts.Atlas:
    return charts.chart(model, photos, images=200)


def test_the_map_has_every_image_once_inside_its_frame(chart: charts.Atlas, photos: Dataset) -> None:
    assert len(chart.rows) == len(chart.rows.unique()) == 200
    assert chart.places.min() == 0
    assert chart.places.max() == 1
    torch.testing.assert_close(chart.labels, photos["class"][chart.rows])


def test_what_lies_together_is_alike(chart: charts.Atlas, model: Model, photos: Dataset) -> None:
    features = torch.nn.functional.normalize(model.predict(photos["image"][chart.rows])["features"], dim=1)
    places = torch.from_numpy(chart.places).float()
    nearest = torch.cdist(places, places).fill_diagonal_(9).argmin(1)
    beside = (features * features[nearest]).sum(1).mean()
    anywhere = (features * features.roll(1, 0)).sum(1).mean()
    assert beside > anywhere + 0.1 * (1 - anywhere)


def test_neighbours_are_the_nearest_and_not_the_image_itself(
    chart: charts.Atlas, model: Model, photos: Dataset
) -> None:
    features = torch.nn.functional.normalize(model.predict(photos["image"][chart.rows])["features"], dim=1)
    for sample, nearest in zip(chart.samples, chart.neighbours, strict=True):
        cosine = features @ features[sample]
        cosine[sample] = -2
        assert sample not in nearest
        assert nearest == cosine.topk(charts.NEIGHBOURS).indices.tolist()


def test_samples_lie_far_from_each_other() -> None:
    corners = torch.eye(4).repeat_interleave(5, 0)
    assert len({sample // 5 for sample in charts.spread(corners, 4)}) == 4


def test_the_same_seed_draws_the_same_map(model: Model, photos: Dataset) -> None:
    one, again = (charts.chart(model, photos, images=60, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.places, again.places)


def test_too_few_images_are_told(model: Model, photos: Dataset) -> None:
    with pytest.raises(ValueError, match="at least 10 images, not 4"):
        charts.chart(model, photos.select(torch.arange(4)))


def test_the_page_shows_pictures_dots_and_rows_of_neighbours(chart: charts.Atlas, photos: Dataset) -> None:
    blocks = atlas.blocks(chart, photos)
    page = html.render(html.Report("an atlas", "it is shown", [html.Section("Atlas", blocks)]))
    assert page.count("<image ") > 50
    assert page.count("<image ") + page.count("<circle ") == 200
    assert page.count('<ul class="gallery row">') == charts.ROWS
    assert page.count("<title>") == 1 + 200  # the page's own, and one that shows when a mark is pointed at
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert len(page) < 1_500_000


def test_no_picture_covers_another_and_every_dot_lacks_room() -> None:
    crowded = np.concatenate([np.full((50, 2), 0.5), np.random.default_rng(0).random((400, 2))])
    at = plots.on_map(crowded)
    shown = atlas.apart(crowded, 1000)
    distance = np.abs(at[:, None] - at[shown]).max(axis=2)
    assert (np.sort(distance[shown], axis=1)[:, 1] >= plots.PICTURE).all()
    assert (distance[[place for place in range(450) if place not in shown]].min(axis=1) < plots.PICTURE + 2).all()
    assert atlas.apart(crowded, 40) == shown[:40]


def test_pictures_stay_inside_of_the_map() -> None:
    at = plots.on_map(np.array([[0.0, 0.0], [1.0, 1.0]]))
    assert at.min() > plots.side(2) / 2
    assert (np.array(plots.MAP) - at[1] > plots.side(2) / 2).all()


def test_few_images_are_drawn_larger() -> None:
    assert plots.side(0) == plots.side(10) == plots.LARGEST
    assert plots.LARGEST > plots.side(80) > plots.side(120) > plots.side(1500) == plots.PICTURE


def labelled(labels: list[int]) -> charts.Atlas:
    names = tuple(f"kind {label}" for label in range(20))
    places = np.random.default_rng(1).random((len(labels), 2))
    return charts.Atlas(torch.arange(len(labels)), places, torch.tensor(labels), names, [0], [[1]])


def test_the_largest_classes_have_colours_and_the_others_are_told(photos: Dataset) -> None:
    labels = [label for label in range(20) for _ in range(2 if label % 2 else 1)] + [-1] * 3
    drawn = atlas.blocks(labelled(labels), photos)[0]
    named = dict(drawn.legend)
    assert len(named) == atlas.COLOURS + 1
    assert {f"kind {label}" for label in range(1, 20, 2)} <= set(named)
    assert named["other classes or unknown"] == "muted"
    assert len(set(named.values())) == len(named)


def test_names_of_files_and_classes_are_escaped(photos: Dataset) -> None:
    drawn = plots.atlas(np.zeros((1, 2)), {}, ["muted"], ["<script>: & co"])
    assert "&lt;script&gt;: &amp; co" in drawn
    assert "<script>" not in drawn


def test_unknown_labels_have_no_colour_of_their_own(photos: Dataset) -> None:
    chart = labelled([-1] * 12)
    drawn = atlas.blocks(chart, photos)[0]
    assert drawn.legend == []
    assert "var(--c" not in drawn.svg
    assert "var(--muted)" in drawn.svg
    assert plots.atlas(chart.places, {}, ["c0"] * 12).count("<circle") == 12
