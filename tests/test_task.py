"""Another task than classification in the training loop: its loss, groups, rates and sums."""

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from report.run import Run
from runtime.processes import Processes
from training.loop import Trainer
from training.state import EpochSoFar, TrainingState
from training.task import result_of_all

CPU = torch.device("cpu")


class SumOfLosses:
    """Two sums: of losses, and of images."""

    def __init__(self, device):
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)

    def result(self):
        loss, count = self.sums.tolist()
        return {"loss": loss / count, "count": round(count)}


class Regression:
    """A line through points; its bias learns ten times as fast as its slope."""

    best_by = "closeness"

    def __init__(self):
        self.description = {"network": "line"}

    def optimizer(self, network):
        groups = [{"params": [network.weight]}, {"params": [network.bias], "rate": 10}]
        return torch.optim.SGD(groups, 1.0, momentum=0.5)

    def learning_rate(self, epoch, step):
        return 0.01 * step / (epoch + 1)

    def new_sums(self, device):
        return SumOfLosses(device)

    def loss(self, network, x, y, sums):
        loss = (network(x) - y["values"]).square().mean()
        sums.sums += torch.stack([loss.detach() * len(x), torch.tensor(float(len(x)))])
        return loss

    def in_words(self, result):
        return f"loss {result['loss']:.2f}"


def batches():
    torch.manual_seed(0)
    return [(torch.randn(n, 1), {"values": torch.randn(n, 1)}) for n in (4, 4, 2)]


def trainer_of(network):
    data = SimpleNamespace(steps=3, training_batches=lambda seed, first: batches()[first:])
    args = Namespace(epochs=2, seed=0, precision="fp32", grad_clip=0.0, report_freq=1)
    return Trainer(args, TrainingState(Run(None, Processes(CPU)), network, Regression()), data)


def test_steps_have_the_rates_of_their_groups_and_of_their_place():
    network = nn.Linear(1, 1)
    with torch.no_grad():
        network.weight.fill_(0.5)
        network.bias.fill_(-1.0)
    trainer = trainer_of(network)
    result = trainer.train_epoch()

    weight, bias, velocities, losses = 0.5, -1.0, [0.0, 0.0], []
    for step, (x, y) in enumerate(batches(), start=1):
        x, y = x.double(), y["values"].double()
        error = weight * x + bias - y
        gradients = [(2 * error * x).mean().item(), (2 * error).mean().item()]
        losses.append(error.square().sum().item())
        velocities = [0.5 * v + g for v, g in zip(velocities, gradients, strict=True)]
        weight -= 0.01 * step * velocities[0]
        bias -= 0.1 * step * velocities[1]
    assert network.weight.item() == pytest.approx(weight, rel=1e-5)
    assert network.bias.item() == pytest.approx(bias, rel=1e-5)
    assert result == {"loss": pytest.approx(sum(losses) / 10, rel=1e-5), "count": 10}


def test_a_part_of_an_epoch_is_kept_as_the_tasks_sums():
    sums = SumOfLosses(CPU)
    sums.sums += torch.tensor([6.0, 4.0])
    so_far = EpochSoFar(sums)
    so_far.step = 2
    state = so_far.state_dict(Processes(CPU))
    other = EpochSoFar(SumOfLosses(CPU))
    assert other.is_state(state, steps=3)
    assert not other.is_state({**state, "sums": torch.ones(1, 4, dtype=torch.float64)}, steps=3)
    other.load_state_dict(state, Processes(CPU))
    assert other.sums.result() == {"loss": 1.5, "count": 4} and other.step == 2
    assert result_of_all(other.sums, Processes(CPU)) == {"loss": 1.5, "count": 4}


def test_the_best_is_judged_and_kept_by_the_tasks_own_number():
    saved = {}
    run = Run(None, Processes(CPU))
    run.save = lambda name, content, keep_previous=False: saved.__setitem__(name, content)
    state = TrainingState(run, nn.Linear(1, 1), Regression())
    assert [state.finish_epoch(value) for value in (3.0, 2.0, 3.0, 4.0)] == [
        True,
        False,
        False,
        True,
    ]
    state.save_best(4.0)
    state.save_last(4.0)
    assert saved["best.pt"]["closeness"] == 4.0 and "best_closeness" not in saved["best.pt"]
    assert saved["last.pt"]["best_closeness"] == 4.0 and saved["last.pt"]["network"] == "line"
