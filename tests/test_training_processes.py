"""Training and evaluation in two processes (gloo, CPU), against both parts in one."""

import copy

import pytest
import torch
from kill_harness import start_forks
from plain_training import PlainSGD, gradients_of
from test_evaluation_recipe import counted_by_hand
from test_training_recipe import random_batches, trainer_of

from genotypes import RelativeNAS
from model import NetworkCIFAR
from runtime.processes import Processes
from training.classification import evaluate

CPU = torch.device("cpu")


def parts():
    """Each process's training and validation batches; of the last, sizes differ."""
    batches = random_batches(8, 8, 5)
    validation = [batches[4:7], [tuple(part[:2] for part in batches[7])]]
    return [(batches[0:2], validation[0]), (batches[2:4], validation[1])]


def new_network():
    torch.manual_seed(0)
    return NetworkCIFAR(2, 5, 3, True, RelativeNAS).double()


def train_and_evaluate(rank, folder):
    """One of the processes: two steps, an evaluation, and what came of them in a file."""
    processes = Processes(CPU)
    training, validation = parts()[rank]
    network = new_network()
    trainer = trainer_of(network, training, processes)
    network.stem[1].running_mean.fill_(100 * rank)
    train = trainer.train_epoch()
    own_mean = network.stem[1].running_mean.clone()
    confusion = torch.full((5, 5), 3)
    result = evaluate(network, validation, processes, torch.float32, confusion)
    content = {"state": network.state_dict(), "train": train, "result": result}
    torch.save(content | {"confusion": confusion, "own_mean": own_mean}, folder / f"{rank}.pt")
    processes.close()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    for process in start_forks(2, lambda rank: train_and_evaluate(rank, folder)):
        process.join()
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def plain():
    """The network after both processes' steps: SGD on the mean of their gradients.

    Each process normalises its own part of a batch; the main one's statistics are kept.
    """
    main, other = new_network(), new_network()
    optimizer = PlainSGD(main, clip=1.0, momentum=0.9, decay=0.1)
    for step in range(2):
        gradients = [
            gradients_of(network, *training[step], 0.4, 0.0)
            for network, (training, _) in zip((main, other), parts(), strict=True)
        ]
        means = [None if a is None else (a + b) / 2 for a, b in zip(*gradients, strict=True)]
        optimizer.step(means, 0.05)
        other.load_state_dict(copy.deepcopy(main.state_dict()))
    return main


def test_processes_step_by_the_mean_of_their_gradients(outcomes, plain):
    for outcome in outcomes:
        torch.testing.assert_close(outcome["state"], plain.state_dict(), rtol=1e-5, atol=1e-7)


def test_training_steps_send_no_statistics(outcomes):
    assert outcomes[0]["own_mean"].max() < 50 < outcomes[1]["own_mean"].min()


def test_results_are_those_of_all_processes_images_with_the_main_ones_statistics(outcomes, plain):
    plain.eval()
    with torch.no_grad():
        batches = [
            (plain(images)[0], labels) for _, validation in parts() for images, labels in validation
        ]
    expected, confusion = counted_by_hand(batches)
    assert expected["count"] == 20
    for outcome in outcomes:
        assert outcome["result"] == pytest.approx(expected, rel=1e-4)
        assert outcome["confusion"].tolist() == confusion
        assert outcome["train"]["count"] == 24
    assert outcomes[0]["train"] == outcomes[1]["train"]
