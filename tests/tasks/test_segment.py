import numpy as np
import torch
from PIL import Image

from rushlight import tasks
from rushlight.data.columns import encode_text
from rushlight.data.dataset import Dataset

MASKS = tasks.find("mask")


def test_parts_by_loops():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 6, 6, generator=generator)
    true = torch.randint(0, 3, (2, 6, 6), generator=generator, dtype=torch.uint8)
    true[0, 0] = 255
    confusion = MASKS.parts({"mask": logits}, {"mask": true})["confusion"]
    want = torch.zeros(2, 3, 3, dtype=torch.int32)
    for n in range(2):
        for y in range(6):
            for x in range(6):
                if true[n, y, x] != 255:
                    want[n, int(true[n, y, x]), logits[n, :, y, x].argmax()] += 1
    assert torch.equal(confusion, want)


def test_a_mask_is_written_in_the_pixels_of_the_users_image(tmp_path):
    # a 4×6 image, shown at half its size in the lower rows of a 4×3 canvas
    columns = {
        "image": torch.zeros(1, 3, 4, 3, dtype=torch.uint8),
        "size": torch.tensor([[4, 6]], dtype=torch.int32),
        "to_original": torch.tensor([[[2.0, 0.0, 0.0], [0.0, 2.0, -4.0]]]),
    }
    logits = torch.zeros(1, 2, 4, 3)
    logits[:, 1, 2:, 1] = 1
    written = MASKS.write([(torch.tensor([0]), {"mask": logits})], Dataset(columns), tmp_path, None)
    mask = np.array(Image.open(written[0]))
    want = np.zeros((4, 6), dtype=np.uint8)
    want[:, 2:4] = 1
    np.testing.assert_array_equal(mask, want)


def test_no_mask_takes_the_place_of_another(tmp_path):
    """What differs in its ending alone keeps that ending; so does what is called as such a mask."""
    names = ["a/x.jpg", "a/x.tif", "a/x.jpg.png", "b/x.jpg", "y.png"]
    data = Dataset({"image": torch.zeros(5, 3, 2, 2, dtype=torch.uint8), "name": encode_text(names)})
    logits = torch.nn.functional.one_hot(torch.arange(5), 5).float()[:, :, None, None].expand(-1, -1, 2, 2)
    written = MASKS.write([(torch.arange(5), {"mask": logits})], data, tmp_path, None)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "a/x.jpg.png", "a/x.tif.png", "a/x.jpg.png.png", "b/x.png", "y.png",
    ]  # fmt: skip
    assert [int(np.array(Image.open(path))[0, 0]) for path in written] == [0, 1, 2, 3, 4]


def test_the_confidence_is_of_known_pixels():
    logits, true = torch.zeros(2, 4, 8, 8), torch.full((2, 8, 8), 255, dtype=torch.uint8)
    true[1] = 2
    found = MASKS.confidence({"mask": logits}, {"mask": true}, torch.Generator().manual_seed(0))
    assert len(found.p) == 64
    assert found.p.unique().tolist() == [0.25]
