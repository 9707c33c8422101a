"""Steps replayed as recordings: what has to hold on any device, with a stand-in for the GPU's."""

import torch
from helpers import TINY, assert_one_line, call_script
from test_model_search import RECIPE, changed, make_supernet, make_trainer

from genotypes import RelativeNAS
from speed.cuda_graphs import WARM_UP_CALLS, ReplayedStep


class StandIn:
    """Replays by calling the function again, which reads its inputs where a graph would."""

    def __init__(self):
        self.calls = []

    def run(self, function):
        self.calls.append("run")
        function()

    def record(self, function):
        self.calls.append("record")

        def replay():
            self.calls.append("replay")
            function()

        return replay


def test_every_call_counts_once_and_sees_its_own_batch():
    seen, places = [], set()

    def step(batch):
        seen.append(batch.tolist())
        places.add(batch.data_ptr())

    recorder = StandIn()
    replayed = ReplayedStep(step, recorder)
    batches = [torch.full((4,), float(i)) for i in range(6)]
    for batch in batches:
        replayed(batch)
    assert seen == [batch.tolist() for batch in batches]
    assert len(places) == 1  # a recording knows its inputs by their address
    assert recorder.calls == ["run"] * WARM_UP_CALLS + ["record"] + ["replay"] * 3


def test_a_smaller_last_batch_runs_as_it_is():
    seen = []
    recorder = StandIn()
    replayed = ReplayedStep(lambda batch: seen.append(len(batch)), recorder)
    for size in (4, 4, 4, 4, 2):
        replayed(torch.zeros(size))
    assert seen == [4, 4, 4, 4, 2]
    assert recorder.calls[-2:] == ["replay", "run"]


def test_a_turn_with_replayed_steps_learns_the_same():
    # 20 images in batches of 4: both passes go past the warm-up.
    outcomes = []
    recorders = (None, StandIn())
    for recorder in recorders:
        trainer = make_trainer(make_supernet(), recorder=recorder, batch_size=4)
        outcomes.append(trainer.take_turn(RelativeNAS, RECIPE, seed=3))
    assert recorders[1].calls.count("record") == 2
    assert recorders[1].calls.count("replay") == 2 * (5 - WARM_UP_CALLS)
    assert outcomes[0].loss == outcomes[1].loss
    assert not changed(outcomes[0].weights, outcomes[1].weights)


def test_needs_a_gpu(monkeypatch, capsys, tmp_path):
    arguments = [*TINY, "--cuda_graphs", "--device", "cpu", "--save", tmp_path / "EXP"]
    status = call_script("train_search", arguments, monkeypatch)
    assert_one_line(status, capsys, "--cuda_graphs", "GPU")
    assert not list(tmp_path.iterdir())
