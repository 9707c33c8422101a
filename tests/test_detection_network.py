"""The detector against the authors' network: names, sizes, outputs; and its checkpoints."""

import numpy as np
import pytest
import torch
from detection_reference import TINY, assert_like_reference, read_reference
from helpers import formula_weights
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection.image_list import ImageList

from genotypes import DARTS_V2, RelativeNAS
from runtime.errors import UserError
from transfer.detection.network import (
    build_detector,
    describe_detector,
    load_detector,
    new_detector,
    own_names,
)
from utils import multiply_adds, parameter_count

REFERENCE = read_reference("detection_network")


@pytest.fixture(scope="module")
def published():
    return new_detector()


def test_the_state_dict_is_the_originals(published):
    renamed = own_names({name: torch.empty(s) for name, s in REFERENCE["state_dict"].items()})
    shapes = {name: list(tensor.shape) for name, tensor in published.state_dict().items()}
    assert shapes == {name: list(tensor.shape) for name, tensor in renamed.items()}
    assert len(renamed) == len(REFERENCE["state_dict"])


def test_parameters_and_multiply_adds_are_the_originals(published):
    assert parameter_count(published) == REFERENCE["parameters"] == 5_069_824
    parts = REFERENCE["parameters_by_part"]
    head = published.head
    for part, name in (
        (published.backbone.body, "base_net"),
        (published.backbone.extras, "extras"),
        (head.classification, "classification_headers"),
        (head.regression, "regression_headers"),
    ):
        assert parameter_count(part) == parts[name]
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = new_detector().eval()
        network.raw_outputs(torch.empty(1, 3, 320, 320))
    assert counter.get_total_flops() // 2 == REFERENCE["multiply_adds"]["convolutions"]


def test_multiply_adds_of_a_whole_detector_are_those_of_its_layers():
    network = new_detector(**TINY)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval().raw_outputs(torch.zeros(1, 3, 64, 64))
    assert multiply_adds(network, 64) == counter.get_total_flops() // 2


@pytest.mark.parametrize("entry", REFERENCE["outputs"], ids=lambda entry: str(entry["seed"]))
def test_outputs_are_the_originals(published, entry):
    weights = formula_weights(REFERENCE["state_dict"], entry["seed"], entry["weight_factor"])
    published.load_state_dict(own_names(weights))
    published.train(entry["mode"] == "train")
    random = np.random.RandomState(entry["seed"])
    images = random.randn(entry.get("batch", 1), 3, *entry["input_hw"])
    images = torch.from_numpy(images).float()
    expected = {tensor["name"]: tensor for tensor in entry["tensors"]}
    with torch.no_grad():
        logits, offsets = published.raw_outputs(images)
        maps = published.backbone.body(images) if "base_net[1]" in expected else {}
    first = entry.get("first_priors", logits.shape[1])
    found = {"confidences": logits[:, :first], "locations": offsets[:, :first]}
    found |= {"base_net[1]": maps.get("0"), "base_net[2]": maps.get("1")}
    if "boxes" in expected:
        found["probabilities"] = logits.softmax(dim=2)
        found["boxes"] = boxes_of(published, images, offsets) / 320
    tolerances = entry["float32_against_float64"]
    for name, tensor in expected.items():
        if name != "base_net[0]":  # the map at stride 8 is not used, so it is not made
            assert_like_reference(found[name], tensor, 3 * tolerances.get(name, 1e-5))


def boxes_of(network, images, offsets):
    """The boxes of all priors, in pixels."""
    (priors,) = network.anchor_generator(
        torch_images(images), list(network.backbone(images).values())
    )
    return network.box_coder.decode_single(offsets[0], priors)[None].detach()


def torch_images(images):
    return ImageList(images, [tuple(images.shape[2:])] * len(images))


def test_new_layers_begin_as_ssds():
    torch.manual_seed(0)
    network = new_detector(init_channels=2, layers=2)
    for layers in (network.head.classification, network.head.regression):
        convolutions = [part for part in layers.modules() if isinstance(part, torch.nn.Conv2d)]
        assert len(convolutions) == 11
        assert all((convolution.bias == 0).all() for convolution in convolutions)
    weight = network.backbone.extras[1].conv[2].weight  # (256, 128, 1, 1)
    assert weight.abs().max().item() == pytest.approx((6 / (256 + 128)) ** 0.5, rel=0.01)


def test_images_are_normalised_and_resized_without_antialiasing():
    network = new_detector(**TINY).eval()
    image = torch.rand(3, 50, 70)
    seen = []
    network.backbone.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    network([image])
    expected = torch.nn.functional.interpolate(
        (255 * image[None] - 127) / 128, (64, 64), mode="bilinear"
    )
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-5)


def test_detections_are_in_the_pixels_of_each_image():
    torch.manual_seed(0)
    network = new_detector(**TINY | {"num_classes": 11}).eval()
    image = torch.rand(3, 64, 64)
    wide = image.repeat_interleave(2, dim=2)
    (small,), (large,) = network([image]), network([wide])
    assert len(small["boxes"]) > 200  # torchvision's limit
    assert small["labels"].unique().tolist() == list(range(1, 11))
    assert (small["scores"].diff() <= 0).all()
    assert (small["boxes"] < 0).any()  # not clipped
    assert large["boxes"][:, 2].max() > 1.5 * small["boxes"][:, 2].max()


def test_in_half_precision_boxes_stay_exact():
    network = new_detector(**TINY).eval()
    features = [torch.zeros(1, 4, side, side, dtype=torch.bfloat16) for side in (6, 3, 2, 1, 1, 1)]
    images = torch_images(torch.zeros(1, 3, 96, 96))
    (half,) = network.anchor_generator(images, features)
    (full,) = network.anchor_generator(images, [map_.float() for map_ in features])
    assert torch.equal(half, full)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, offsets = network.raw_outputs(torch.rand(1, 3, 64, 64))
    assert logits.dtype == offsets.dtype == torch.float32


def test_at_other_sizes_priors_are_in_the_middle_of_their_places():
    network = new_detector(**TINY | {"image_size": 96}).eval()
    maps = list(network.backbone(torch.rand(1, 3, 96, 96)).values())
    (priors,) = network.anchor_generator(torch_images(torch.rand(1, 3, 96, 96)), maps)
    assert [map_.shape[2] for map_ in maps] == [6, 3, 2, 1, 1, 1]
    torch.testing.assert_close(priors[-1].view(2, 2).mean(dim=0), torch.tensor([48.0, 48.0]))
    torch.testing.assert_close(priors[0], torch.tensor([-1.0, -1.0, 17.0, 17.0]))


@pytest.fixture
def original(tmp_path):
    """A file with a state dict under the original's names, and the network that it is from."""
    network = new_detector(**TINY)
    theirs = {"backbone.body.network": "base_net", "backbone.extras": "extras"}
    theirs |= {"head.classification": "classification_headers"}
    theirs |= {"head.regression": "regression_headers"}
    state = {}
    for name, tensor in network.state_dict().items():
        ours = next(part for part in theirs if name.startswith(part))
        state["module." + theirs[ours] + name.removeprefix(ours)] = tensor
    torch.save(state, tmp_path / "original.pth")
    return tmp_path / "original.pth", network


def test_a_checkpoint_of_the_original_loads(original):
    path, network = original
    loaded, description = load_detector(path, init_channels=2, layers=2, image_size=64)
    assert not loaded.training and description["num_classes"] == 3
    image = torch.rand(1, 3, 64, 64)
    for found, expected in zip(
        loaded.raw_outputs(image), network.eval().raw_outputs(image), strict=True
    ):
        assert torch.equal(found, expected)


def test_our_own_checkpoint_says_what_it_holds(tmp_path):
    description = describe_detector(DARTS_V2, 2, 2, 4, 96, ["a", "b", "c"])
    network = build_detector(description)
    torch.save(description | {"state_dict": network.state_dict()}, tmp_path / "own.pt")
    loaded, found = load_detector(tmp_path / "own.pt")
    assert found == description and loaded.image_size == 96
    assert str(loaded) == str(network)


def test_mistakes_are_one_line(original, tmp_path):
    path, network = original
    state = network.state_dict()
    described = describe_detector(RelativeNAS, 2, 2, 3, 64)
    files = {
        "layers": described | {"layers": 1, "state_dict": state},
        "names": described | {"class_names": ["a"], "state_dict": state},
        "text": described | {"class_names": "ab", "state_dict": state},
        "genotype": described | {"genotype": 3, "state_dict": state},
        "task": described | {"task": "keypoints", "state_dict": state},
        "classifier": {"classifier.weight": torch.zeros(10, 4)},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / f"{name}.pt")
    for name, texts in {
        "layers": ["'layers' must be a whole number from 2 to 1000"],
        "names": ["'class_names' must have a name for each class"],
        "text": ["'class_names' must be a list"],
        "genotype": ["does not describe a detector"],
        "task": ["'task' must be 'detection'"],
        "classifier": ["holds no detector", "transfer/train_detection.py"],
    }.items():
        with pytest.raises(UserError) as caught:
            load_detector(tmp_path / f"{name}.pt")
        assert "\n" not in str(caught.value)
        assert all(text in str(caught.value) for text in [f"{name}.pt", *texts])
    with pytest.raises(UserError, match=r"another architecture.*--init_channels"):
        load_detector(path, init_channels=4, layers=2)
    with pytest.raises(UserError, match="network for detection: field 'image_size'"):
        new_detector(image_size=0)
