from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from rushlight.core import files
from rushlight.core.errors import UserError
from rushlight.data.columns import encode_text
from rushlight.data.dataset import Dataset
from rushlight.nets import encoders, heads
from rushlight.nets.dense.decoders import Decoder
from rushlight.nets.heads import MLP, Chain, Head, Linear
from rushlight.run.model import Model, ModelInfo


def model(name: str = "conv16", size: int = 28, task: str = "class") -> Model:
    encoder = encoders.create(name, image_size=size, seed=1)
    heads = {
        "class": Linear(width=encoder.width, outputs=4),
        "open": Chain(MLP(widths=[encoder.width, 8, 6]), Linear(width=6, outputs=5, bias=False)),
        "mask": Decoder(channels=encoder.channels, strides=encoder.strides, outputs=3),
    }
    return Model(
        encoder, heads, ModelInfo(image_size=(size, size), task=task, names={"class": ("a", "b", "c", "d")})
    ).eval()


@pytest.mark.parametrize("name", ["conv16", "vit96", "resnet18"])
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    size = 32
    one = model(name, size)
    one.save(tmp_path / "m")
    two = Model.load(tmp_path / "m")
    assert two.info == one.info
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    first, second = one.predict(images), two.predict(images)
    assert set(first) == {"class", "open", "mask"}
    assert first["mask"].shape == (3, 3, size, size)
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=0, atol=1e-6)


def test_the_hub_convention(tmp_path: Path) -> None:
    """What `push_to_hub` uploads is what `from_pretrained` reads."""
    one = model()
    one.save_pretrained(tmp_path / "m")
    two = Model.from_pretrained(str(tmp_path / "m"))
    images = torch.zeros(1, 3, 28, 28, dtype=torch.uint8)
    assert torch.equal(one.predict(images)["class"], two.predict(images)["class"])


def test_saving_replaces_a_model_and_nothing_else(tmp_path: Path) -> None:
    model().save(tmp_path / "m")
    model().save(tmp_path / "m")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds no model"):
        model().save(tmp_path / "other")
    assert (tmp_path / "other" / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "other"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("{}"),
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x04pickle"),
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-50]),
    ],
)
def test_a_damaged_model_is_refused_in_one_sentence(damage, tmp_path: Path) -> None:
    model().save(tmp_path / "m")
    damage(tmp_path / "m")
    with pytest.raises(UserError, match="cannot be read"):
        Model.load(tmp_path / "m")


def test_predicting_keeps_the_mode_and_splits_batches_evenly() -> None:
    one = model().train()
    images = torch.randint(0, 256, (7, 3, 28, 28), dtype=torch.uint8)
    parts, whole = one.predict(images, batch=2), one.predict(images)
    assert one.training
    torch.testing.assert_close(parts["class"], whole["class"])
    assert one.predict(images[:0])["class"].shape == (0, 4)


def test_batches_are_predicted_one_by_one_and_together_are_the_whole() -> None:
    one = model()
    images = torch.randint(0, 256, (7, 3, 28, 28), dtype=torch.uint8)
    rows = torch.tensor([6, 0, 3])
    parts = list(one.predict_batches(Dataset({"image": images}), rows=rows, batch=2, names=["class", "features"]))
    assert [len(part["class"]) for part in parts] == [2, 1]
    torch.testing.assert_close(torch.cat([part["class"] for part in parts]), one.predict(images)["class"][rows])
    torch.testing.assert_close(parts[1]["features"], one.encoder(one.encoder.prepare(images[3:4])))


def test_a_batch_of_large_images_is_small() -> None:
    one, seen = model(), []
    one.encoder.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    for side, batch in ((512, 1), (28, 40)):
        seen.clear()
        images = torch.zeros(40, 3, side, side, dtype=torch.uint8)
        assert len(one.predict(images, names=["class"])["class"]) == 40
        assert seen == [batch] * (40 // batch)


class Match(Head):
    """The product of the features of an image and those of a text."""

    reads = ("image.pooled", "text.pooled")

    def __init__(self) -> None:
        super().__init__()
        self.config = {}
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return self.scale * (image * text).sum(1, keepdim=True)


class Blobs(Head):
    """Draws images: a learned colour and noise."""

    def __init__(self, *, side: int):
        super().__init__()
        self.config = {"side": side}
        self.colour = torch.nn.Parameter(torch.rand(3))
        self.noise = torch.nn.Dropout(0.5)  # off in evaluation

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features

    def sample(self, n: int, generator: torch.Generator) -> torch.Tensor:
        noise = torch.rand(n, 3, *[self.config["side"]] * 2, generator=generator, device=generator.device)
        return self.noise((self.colour[:, None, None] + noise) / 2)


def test_a_model_with_a_sampler_draws_and_goes_on_drawing_after_a_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(heads, "HOMES", (*heads.HOMES, __name__))
    one = Model(
        encoders.create("conv16", seed=1), {"class": Linear(width=64, outputs=2), "images": Blobs(side=8)}
    ).train()
    state = torch.random.get_rng_state()
    drawn = one.sample(5, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.training
    assert drawn.shape == (5, 3, 8, 8)
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
    assert torch.equal(one.sample(5, seed=3), drawn)
    assert not torch.equal(one.sample(5, seed=4), drawn)
    one.save(tmp_path / "m")
    assert torch.equal(Model.load(tmp_path / "m").sample(5, seed=3), drawn)


def test_a_model_without_a_sampler_says_what_it_is() -> None:
    with pytest.raises(UserError, match="it is the encoder 'conv16' with the heads class, open, mask"):
        model().sample(2)
    with pytest.raises(UserError, match="'conv16' with no head"):
        Model(encoders.create("conv16")).sample(2)


def pair() -> Model:
    """An image and a text encoder, of the same width."""
    nets = {"image": encoders.create("conv16", image_size=28, seed=1), "text": encoders.create("ngram64", seed=2)}
    heads = {"class": Linear(width=64, outputs=4), "topic": Linear(width=64, outputs=2).reading("text.pooled")}
    return Model(nets, heads, ModelInfo(image_size=(28, 28), task="class")).eval()


def test_two_named_encoders_are_saved_loaded_and_predict(tmp_path: Path) -> None:
    one = pair()
    one.save(tmp_path / "m")
    two = Model.load(tmp_path / "m")
    assert list(two.encoders) == ["image", "text"]
    images, captions = torch.randint(0, 256, (3, 3, 28, 28), dtype=torch.uint8), encode_text(["a bag", "né", ""])
    first = one.predict({"image": images, "text": captions}, batch=2)
    second = two.predict(Dataset({"image": images, "caption": captions}))
    assert {name: values.shape for name, values in first.items()} == {"class": (3, 4), "topic": (3, 2)}
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-6)
    torch.testing.assert_close(first["topic"], two.head("topic")(two.encoders["text"](captions)))


def test_a_head_may_read_two_encoders() -> None:
    one = pair()
    both = Model(dict(one.encoders.items()), {"match": Match()}).eval()
    images, captions = torch.rand(2, 3, 28, 28), encode_text(["a bag", "a shoe"])
    wanted = (both.encoders["image"](images) * both.encoders["text"](captions)).sum(1, keepdim=True)
    torch.testing.assert_close(both({"image": images, "text": captions})["match"], wanted)
    torch.testing.assert_close(both.logits({"image": images, "text": captions}), wanted)


def test_of_two_inputs_one_suffices_for_the_heads_that_read_it() -> None:
    one, images = pair(), torch.zeros(2, 3, 28, 28, dtype=torch.uint8)
    assert set(one.predict(images)) == {"class"}
    with pytest.raises(UserError, match="'topic' needs the input of the encoder 'text'"):
        one.predict(images, names=["topic"])


def test_an_encoder_can_be_exchanged() -> None:
    one, other = pair(), encoders.create("conv16", image_size=28, seed=9)
    one.encoder = other
    assert one.encoder is one.encoders["image"] is other
    assert list(one.encoders) == ["image", "text"]


class Killed(BaseException):
    """What a kill is to the code that it hits: nothing cleans up after it."""


STEPS = [("rename", Path), ("rmtree", shutil), ("_flush", files)]
"""What changes the disk while a model is replaced."""


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_moment_leaves_the_old_model_or_the_new_one(
    after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = model(), model()
    torch.nn.init.constant_(new.head("class").linear.bias, 7.0)
    images = torch.zeros(1, 3, 28, 28, dtype=torch.uint8)
    answers = [one.predict(images)["class"] for one in (old, new)]
    moments, left = 0, set()
    while moments < 40:
        folder = tmp_path / f"{moments}" / "m"
        old.save(folder)
        with monkeypatch.context() as patch:
            countdown = [moments]
            for name, place in STEPS:
                patch.setattr(place, name, dying(getattr(place, name), countdown, after))
            try:
                new.save(folder)
            except Killed:
                found = Model.load(folder).predict(images)["class"]
            else:
                break
        left.add(next(i for i, answer in enumerate(answers) if torch.equal(found, answer)))
        new.save(folder)  # the next try succeeds, and leaves nothing of the first one's
        assert torch.equal(Model.load(folder).predict(images)["class"], answers[1])
        assert not folder.with_name(".m.replaced").exists()
        moments += 1
    assert 6 <= moments < 40
    assert left == {0, 1}


def dying(function, countdown: list[int], after: bool):
    """The function, killed at its turn: before it acts, or after."""

    def killed(*arguments, **settings):
        countdown[0] -= 1
        if countdown[0] == -1 and not after:
            raise Killed
        result = function(*arguments, **settings)
        if countdown[0] == -1:
            raise Killed
        return result

    return killed
