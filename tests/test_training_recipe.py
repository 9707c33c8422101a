"""Training from scratch: the recipe's numbers where they take effect, and plain references."""

import copy
import math
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from helpers import TINY_IMAGENET, write_image_folder, write_small_set
from plain_training import PlainSGD, gradients_of, smoothed_loss
from recording import recorded

import train
import train_imagenet
from dataset import image_batches
from genotypes import RelativeNAS
from model import NetworkCIFAR, NetworkImageNet
from report.run import Run
from runtime.processes import Processes
from training import classification
from training.classification import Classification
from training.loop import Trainer
from training.state import TrainingState
from utils import derive_seed

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    """Flags of a training on 24 images in two steps an epoch."""
    return [*write_small_set(tmp_path_factory.mktemp("small")), "--no-cutout"]


@pytest.fixture(scope="module")
def small_imagenet(tmp_path_factory):
    """Flags of a training on 24 images in three steps an epoch."""
    data = tmp_path_factory.mktemp("imagenet")
    write_image_folder(data, {"train": {"a": 12, "b": 12}, "val": {"a": 4, "b": 4}})
    return [*TINY_IMAGENET, "--data_path", str(data)]


def run(script, *flags):
    """Train in this process, without a run folder; returns what was recorded."""
    with recorded() as record:
        script.train(script.parse_arguments([*map(str, flags)]), Run(None, Processes(CPU)))
    return record


# A step, an epoch, a whole training against a plain one.


def random_batches(count, size, classes):
    torch.manual_seed(1)
    return [
        (torch.randn(6, 3, size, size, dtype=torch.float64), torch.randint(classes, (6,)))
        for _ in range(count)
    ]


def trainer_of(network, batches, processes=None, **changes):
    args = Namespace(
        epochs=4, seed=0, precision="fp32", learning_rate=0.5, momentum=0.9, weight_decay=0.1,
        grad_clip=1.0, auxiliary_weight=0.4, report_freq=50,
    )  # fmt: skip
    label_smoothing = changes.pop("label_smoothing", 0.0)
    vars(args).update(changes)
    task = Classification(args, {}, lambda epoch: 0.05, label_smoothing)
    state = TrainingState(Run(None, processes or Processes(CPU)), network, task)
    return Trainer(args, state, data_of_batches(batches))


def data_of_batches(batches):
    """The same training batches in every epoch, whatever the seed."""
    return SimpleNamespace(
        steps=len(batches), training_batches=lambda seed, first_step: batches[first_step:]
    )


@pytest.mark.parametrize("auxiliary", [True, False])
@pytest.mark.parametrize(
    ("network_class", "size", "smoothing"), [(NetworkCIFAR, 8, 0.0), (NetworkImageNet, 32, 0.1)]
)
def test_steps_are_those_of_a_plain_training(network_class, size, smoothing, auxiliary):
    torch.manual_seed(0)
    network = network_class(2, 5, 3, auxiliary, RelativeNAS).double()
    plain = copy.deepcopy(network)
    batches = random_batches(3, size, 5)
    trainer = trainer_of(network, batches, label_smoothing=smoothing)
    trainer.train_epoch()

    optimizer = PlainSGD(plain, clip=1.0, momentum=0.9, decay=0.1)
    for images, labels in batches:
        optimizer.step(gradients_of(plain, images, labels, 0.4, smoothing), 0.05)
    torch.testing.assert_close(network.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-7)
    for parameter, velocity in zip(network.parameters(), optimizer.velocities, strict=True):
        if parameter in trainer.state.optimizer.state:
            kept = trainer.state.optimizer.state[parameter]["momentum_buffer"]
            torch.testing.assert_close(kept, velocity, rtol=1e-5, atol=1e-7)
        else:
            assert not velocity.any()


def test_the_training_loss_reported_is_the_main_heads_over_all_images():
    torch.manual_seed(0)
    network = NetworkCIFAR(2, 5, 3, True, RelativeNAS).double()
    batches = random_batches(2, 8, 5)
    batches[1] = tuple(part[:2] for part in batches[1])  # the last batch is smaller
    with recorded() as record:
        trainer = trainer_of(network, batches, label_smoothing=0.1)
        result = trainer.train_epoch()
    losses = [
        smoothed_loss(forward.logits, labels, 0.1).item()
        for forward, (_, labels) in zip(record.forwards, batches, strict=True)
    ]
    assert result["loss"] == pytest.approx((6 * losses[0] + 2 * losses[1]) / 8)
    assert result["count"] == 8


def in_float64(batches):
    return [(images.double(), labels) for images, labels in batches]


def test_training_is_that_of_a_plain_loop_over_the_same_batches(small_set, monkeypatch):
    batches = []
    true_network, true_batches = classification.build_network, image_batches.training_batches
    true_evaluation_batches = image_batches.evaluation_batches

    def kept_batches(*arguments):
        batches.append(in_float64(true_batches(*arguments)))
        return batches[-1]

    # In float64, for a few steps are enough to make much of another rounding.
    monkeypatch.setattr(
        classification, "build_network", lambda *given: true_network(*given).double()
    )
    monkeypatch.setattr(image_batches, "training_batches", kept_batches)
    monkeypatch.setattr(
        image_batches,
        "evaluation_batches",
        lambda *given: in_float64(true_evaluation_batches(*given)),
    )
    record = run(train, *small_set, "--epochs", 3, "--grad_clip", 2, "--weight_decay", 0.01)

    torch.manual_seed(0)  # the default of --seed
    plain = NetworkCIFAR(2, 3, 3, True, RelativeNAS).double()
    optimizer = PlainSGD(plain, clip=2.0, momentum=0.9, decay=0.01)
    seeds = iter([forward.seed for forward in record.training])
    for epoch in range(3):
        plain.train()
        plain.drop_path_prob = 0.3 * epoch / 3
        learning_rate = 0.025 * (1 + math.cos(math.pi * epoch / 3)) / 2
        for images, labels in batches[epoch]:
            torch.manual_seed(next(seeds))
            optimizer.step(gradients_of(plain, images, labels, 0.4, 0.0), learning_rate)
    first_images = [epoch[0][0] for epoch in batches]
    assert not torch.equal(first_images[0], first_images[1])
    trained = record.forwards[0].network
    torch.testing.assert_close(trained.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-5)


# The recipe's numbers by epoch.


def test_learning_rates_of_cifar_fall_by_a_cosine(small_set):
    record = run(train, *small_set, "--epochs", 4)
    rates = [step.group["lr"] for step in record.steps]
    middle = math.sqrt(0.5) / 2
    expected = [0.025 * part for part in (1, 0.5 + middle, 0.5, 0.5 - middle)]
    assert rates == pytest.approx([rate for rate in expected for _ in range(2)])


def test_learning_rates_of_imagenet_rise_fall_and_fall_slower(small_imagenet):
    flags = ["--epochs", 7, "--warmup_epochs", 2, "--final_epochs", 2, "--learning_rate", 1]
    record = run(train_imagenet, *small_imagenet, *flags)
    rates = [step.group["lr"] for step in record.steps]
    expected = [1 / 2, 1, 3 / 5, 2 / 5, 1 / 5, 2 / (5 * 2), 1 / (5 * 2)]
    assert rates == pytest.approx([rate for rate in expected for _ in range(3)])


def test_drop_path_rises_with_the_epochs_and_validation_is_in_eval_mode(small_set):
    record = run(train, *small_set, "--epochs", 3)
    modes = [forward.training for forward in record.forwards]
    assert modes == ([{True}, {True}, {False}, {False}]) * 3
    rises = [forward.drop_path_prob for forward in record.training]
    assert rises == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2])


def test_the_auxiliary_head_is_used_in_training_only(small_set, small_imagenet):
    for script, flags in ((train, small_set), (train_imagenet, small_imagenet)):
        record = run(script, *flags, "--epochs", 2)
        assert all(forward.logits_aux is not None for forward in record.training)
        assert all(forward.logits_aux is None for forward in record.evaluation)
        record = run(script, *flags, "--epochs", 2, "--no-auxiliary")
        assert all(forward.logits_aux is None for forward in record.forwards)


def test_the_gradients_norm_is_clipped_over_all_parameters(small_set):
    def norms(*flags):
        return [step.gradient_norm for step in run(train, *small_set, *flags).steps]

    unclipped = norms("--epochs", 1, "--grad_clip", 0)
    assert min(unclipped) > 0.5
    assert norms("--epochs", 1, "--grad_clip", 0.5) == pytest.approx([0.5, 0.5], rel=1e-4)
    assert norms("--epochs", 1, "--grad_clip", 100)[0] == pytest.approx(unclipped[0])


# Random numbers.


def drop_path_seeds(rank, seed=0, epochs=(0, 1)):
    """What each of two steps of each epoch draws its random numbers from."""
    network = NetworkCIFAR(2, 3, 3, False, RelativeNAS)
    batches = [(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))] * 2
    trainer = trainer_of(network, batches, seed=seed)
    trainer.processes.rank = rank
    with recorded() as record:
        for epoch in epochs:
            trainer.state.epoch, trainer.state.so_far.step = epoch, 0
            trainer.train_epoch()
    return [forward.seed for forward in record.forwards]


def test_drop_path_differs_between_steps_epochs_processes_and_seeds_only():
    seeds = [*drop_path_seeds(rank=0), *drop_path_seeds(rank=1), *drop_path_seeds(0, seed=1)]
    assert len(set(seeds)) == 12
    assert drop_path_seeds(rank=0) == seeds[:4]
    assert drop_path_seeds(rank=0, epochs=[1]) == seeds[2:4]


def test_an_epoch_taken_up_again_draws_the_numbers_of_its_place():
    network = NetworkCIFAR(2, 3, 3, False, RelativeNAS)
    batches = [(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))] * 2
    trainer = trainer_of(network, batches)
    trainer.state.so_far.step = 1
    with recorded() as record:
        trainer.train_epoch()
    assert [forward.seed for forward in record.forwards] == drop_path_seeds(rank=0)[1:2]


@pytest.mark.parametrize("script", [train, train_imagenet])
def test_the_initial_weights_depend_on_the_seed_alone(script, small_set, small_imagenet):
    flags = small_set if script is train else small_imagenet

    def first_logits(seed):
        torch.rand(3)  # what was drawn before must not matter
        return run(script, *flags, "--epochs", 2, "--seed", seed).forwards[0].logits

    once, again, other = map(first_logits, (0, 0, 1))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def whole_images(batches):
    """Numbers that tell images apart, whether they are mirrored or not."""
    return [round(image.double().sum().item(), 3) for images, _ in batches for image in images]


def data_of(rank, size, small_set, monkeypatch, *flags):
    """The batches of one of several processes; images of 4 pixels are not cropped."""
    processes = Processes(CPU)
    processes.rank, processes.size = rank, size
    # Each of them measures the images for itself.
    monkeypatch.setattr(Run, "read", lambda run, name, reader: reader(None))
    passed = []
    monkeypatch.setattr(train, "fit", lambda *arguments, **_: passed.append(arguments[3]))
    args = train.parse_arguments([*small_set, "--image_size", "4", *flags])
    train.train(args, Run(None, processes))
    return passed[0]


def test_every_seed_has_its_own_order(small_set, monkeypatch):
    data = data_of(0, 1, small_set, monkeypatch)
    first, again, second = (whole_images(data.training_batches(seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != second and sorted(first) == sorted(second)
    assert whole_images(data.training_batches(0, 1)) == first[12:]


@pytest.mark.parametrize("script", [train, train_imagenet])
def test_every_epoch_of_every_run_has_a_seed_of_its_own(
    script, small_set, small_imagenet, monkeypatch
):
    flags = small_set if script is train else small_imagenet
    batches = train.ImageBatches if script is train else train_imagenet.EncodedBatches
    true_batches, seeds = batches.training_batches, []

    def kept_seeds(self, seed, first_step=0):
        seeds.append(seed)
        return true_batches(self, seed, first_step)

    monkeypatch.setattr(batches, "training_batches", kept_seeds)
    for seed in (0, 5):
        run(script, *flags, "--epochs", 2, "--seed", seed)
    assert seeds == [derive_seed(seed, epoch) for seed in (0, 5) for epoch in (0, 1)]


def test_processes_share_out_the_images_of_each_batch(small_set, monkeypatch):
    alone = data_of(0, 1, small_set, monkeypatch)
    parts = [data_of(rank, 2, small_set, monkeypatch) for rank in range(2)]
    assert [part.steps for part in parts] == [alone.steps] * 2
    for training in (True, False):
        everything, *shares = [
            whole_images(data.training_batches(0, 0) if training else data.validation_batches())
            for data in (alone, *parts)
        ]
        assert [len(share) for share in shares] == [12, 12]
        assert sorted(shares[0] + shares[1]) == sorted(everything)


def test_validation_is_on_the_test_images(small_set, monkeypatch):
    data = data_of(0, 1, small_set, monkeypatch)
    validated = whole_images(data.validation_batches())
    assert len(set(validated)) == 24
    assert not set(validated) & set(whole_images(data.training_batches(0, 0)))


@pytest.mark.parametrize(
    ("flags", "side"), [(["--cutout"], 4), (["--cutout", "--cutout_length", "2"], 2), ([], 0)]
)
def test_cutout_is_half_of_the_image_unless_said_otherwise(flags, side, small_set, monkeypatch):
    data = data_of(0, 1, small_set, monkeypatch, "--image_size", "8", *flags)
    zeros = [
        int((image == 0).all(dim=0).sum())
        for images, _ in data.training_batches(0, 0)
        for image in images
    ]
    assert max(zeros) == side**2  # fewer where the square reaches beyond the border
    assert not any((images == 0).all(dim=1).any() for images, _ in data.validation_batches())


def test_imagenet_epochs_and_processes_differ(small_imagenet, monkeypatch):
    passed = []
    monkeypatch.setattr(train_imagenet, "fit", lambda *arguments, **_: passed.append(arguments[3]))
    args = train_imagenet.parse_arguments(small_imagenet)
    for rank, size in ((0, 1), (0, 2), (1, 2)):
        processes = Processes(CPU)
        processes.rank, processes.size = rank, size
        train_imagenet.train(args, Run(None, processes))
    alone, *parts = passed

    def images(data, epoch, first_step=0):
        batches = data.training_batches(epoch, first_step)
        return [image for images, _ in batches for image in images.flatten(1).tolist()]

    assert images(alone, 0) == images(alone, 0)
    assert images(alone, 0, 1) == images(alone, 0)[8:]
    assert not any(image in images(alone, 1) for image in images(alone, 0))
    shares = [images(part, 0) for part in parts]
    assert sorted(shares[0] + shares[1]) == sorted(images(alone, 0))
    validation = [[len(images) for images, _ in data.validation_batches()] for data in passed]
    assert validation == [[8], [4], [4]]


# The published recipe is what the scripts do without flags.


def published(script, monkeypatch, *flags):
    """What a script without flags would train for: the task of `fit`, and its arguments."""
    passed = []
    monkeypatch.setattr(script, "fit", lambda args, run, task, data: passed.append(task))
    script.train(script.parse_arguments([*map(str, flags)]), Run(None, Processes(CPU)))
    return passed[0]


@pytest.fixture
def cifar_without_flags(small_set, monkeypatch):
    return published(train, monkeypatch, *small_set[:6])  # the images only


@pytest.fixture
def imagenet_without_flags(small_imagenet, monkeypatch):
    return published(train_imagenet, monkeypatch, *small_imagenet[-2:])


def optimizer_numbers(task):
    """What a step of a training for this task takes from the optimizer."""
    network = NetworkCIFAR(2, 3, 3, True, RelativeNAS)
    data = data_of_batches([(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))])
    trainer = Trainer(task.args, TrainingState(Run(None, Processes(CPU)), network, task), data)
    with recorded() as record:
        trainer.train_epoch()
    (step,) = record.steps
    assert len(step.group["params"]) == len(list(network.parameters()))
    group = step.group
    assert not group["nesterov"] and group["dampening"] == 0
    return group["lr"], group["momentum"], group["weight_decay"]


def test_the_published_cifar_recipe(cifar_without_flags):
    args, rate = cifar_without_flags.args, cifar_without_flags.learning_rate
    assert optimizer_numbers(cifar_without_flags) == (0.025, 0.9, 3e-4)
    assert rate(300, 1) == rate(300, 9) == pytest.approx(0.0125)
    assert 0 < rate(599, 1) < 1e-6
    assert (args.epochs, args.batch_size) == (600, 128)
    assert (args.auxiliary_weight, args.grad_clip, args.drop_path_prob) == (0.4, 5.0, 0.3)
    assert cifar_without_flags.label_smoothing == 0.0
    description = cifar_without_flags.description
    assert (description["network"], description["auxiliary"]) == ("cifar", True)
    assert (description["init_channels"], description["layers"]) == (36, 20)
    assert description["genotype"] == RelativeNAS._asdict()


def test_the_published_imagenet_recipe(imagenet_without_flags):
    args = imagenet_without_flags.args
    assert optimizer_numbers(imagenet_without_flags) == (0.1, 0.9, 3e-5)
    rates = [imagenet_without_flags.learning_rate(epoch, 1) for epoch in (4, 5, 249)]
    assert rates == pytest.approx([0.5, 0.5 * 240 / 245, 0.5 / (245 * 5)])
    assert (args.epochs, args.batch_size) == (250, 1024)
    assert (args.auxiliary_weight, args.grad_clip, args.drop_path_prob) == (0.4, 5.0, 0.0)
    assert imagenet_without_flags.label_smoothing == 0.1
    description = imagenet_without_flags.description
    assert (description["network"], description["auxiliary"]) == ("imagenet", True)
    assert (description["init_channels"], description["layers"]) == (46, 14)
    assert description["genotype"] == RelativeNAS._asdict()


# Precision.


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_convolutions_run_in_the_precision_asked_for(precision, small_set, small_imagenet):
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32  # auto is bf16 on GPUs only
    # Images of 16 pixels become maps of 1×1, and PyTorch's weight gradient of a depthwise 3×3
    # convolution with stride 2 in bfloat16 is undefined there (CPU, 2.14).
    large_enough = [*small_imagenet, "--image_size", "32"]
    for script, flags in ((train, small_set), (train_imagenet, large_enough)):
        record = run(script, *flags, "--epochs", 2, "--precision", precision)
        assert [forward.dtypes for forward in record.training] == [{dtype}] * len(record.training)
        assert [forward.dtypes for forward in record.evaluation] == [{dtype}] * len(
            record.evaluation
        )
        weights = record.forwards[0].network.parameters()
        assert {parameter.dtype for parameter in weights} == {torch.float32}
