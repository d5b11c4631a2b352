import pytest
import torch

from rushlight.nets import encoders
from rushlight.nets.detect.boxes import Boxes
from rushlight.nets.detect.neck import Neck


@pytest.mark.parametrize(
    ("name", "stride"), [("conv16", 4), ("vit64", 4), ("resnet18", 4), ("vit_tiny_patch16_224", 8)]
)
def test_the_map_is_fine_whatever_the_encoder(name, stride):
    encoder = encoders.create(name, image_size=64, seed=0)
    neck = Neck(encoder.channels, encoder.strides, 16)
    found = neck(encoder.pyramid(torch.rand(2, 3, 64, 64)))
    assert neck.stride == stride
    assert found.shape == (2, 16, 64 // stride, 64 // stride)


def test_centres_are_those_of_the_cells():
    neck = Neck([8, 8], [4, 8], 8)
    at = neck.centres((2, 3), torch.device("cpu"))
    assert at[0].tolist() == [[2, 6, 10], [2, 6, 10]]
    assert at[1].tolist() == [[2, 2, 2], [6, 6, 6]]


def test_boxes_start_two_cells_wide_around_their_cells():
    head = Boxes(channels=[8, 8], strides=[4, 8], outputs=3, width=8)
    torch.nn.init.zeros_(head.sides[-1].weight)
    output = head([torch.rand(1, 8, 4, 4), torch.rand(1, 8, 2, 2)])
    assert output.shape == (1, 9, 4, 4)
    assert torch.allclose(output[0, :, 1, 2][:6], torch.tensor([2.0, -2.0, 18.0, 14.0, 10.0, 6.0]))
