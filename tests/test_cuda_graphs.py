"""Steps replayed as recordings: what has to hold on any device, with a stand-in for the GPU's."""

import json
import logging
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from graph_like import GraphLike
from helpers import TINY, assert_one_line, call_script
from test_model_search import RECIPE, changed, make_supernet, make_trainer, snapshot

import train_search
from genotypes import DARTS_V2, RelativeNAS
from search import candidate
from search.graph_check import STEPS
from speed.cuda_graphs import WARM_UP_CALLS, CudaGraphs, GraphsFailed, ReplayedStep


def test_every_call_counts_once_and_sees_its_own_batch():
    total, places = torch.zeros(4), set()

    def step(batch):
        total.add_(batch)
        places.add(batch.data_ptr())

    recorder = GraphLike()
    replayed = ReplayedStep(step, recorder)
    for i in range(6):
        replayed(torch.full((4,), 10.0**i))
        assert total.tolist() == [float("1" * (i + 1))] * 4
    assert len(places) == 1  # a recording knows its inputs by their address
    assert recorder.calls == ["run"] * WARM_UP_CALLS + ["record"] + ["replay"] * 3


def test_a_smaller_last_batch_runs_as_it_is():
    total = torch.zeros(())
    recorder = GraphLike()
    replayed = ReplayedStep(lambda batch: total.add_(batch.sum()), recorder)
    for size in (4, 4, 4, 4, 2):
        replayed(torch.ones(size))
    assert total == 18
    assert recorder.calls[-2:] == ["replay", "run"]


@pytest.mark.parametrize("drop_path_prob", [0.0, 0.2])
def test_a_turn_with_replayed_steps_learns_the_same(drop_path_prob):
    # 20 images in batches of 4: both passes go past the warm-up.
    recipe = replace(RECIPE, drop_path_prob=drop_path_prob)
    outcomes = []
    recorders = (None, GraphLike())
    for recorder in recorders:
        trainer = make_trainer(make_supernet(), recorder=recorder, batch_size=4)
        trainer.graphs_checked = True
        outcomes.append(trainer.take_turn(RelativeNAS, recipe, seed=3))
    assert trainer.recorder is recorders[1]
    assert recorders[1].calls.count("record") == 2
    assert recorders[1].calls.count("replay") == 2 * (5 - WARM_UP_CALLS)
    assert outcomes[0].loss == outcomes[1].loss
    assert outcomes[0].accuracy == outcomes[1].accuracy
    assert not changed(outcomes[0].weights, outcomes[1].weights)


def test_a_number_that_the_host_waits_for_cannot_be_recorded():
    def step(batch):
        batch.sum().item()

    replayed = ReplayedStep(step, GraphLike())
    for _ in range(WARM_UP_CALLS):
        replayed(torch.ones(2))
    with pytest.raises(GraphsFailed, match="capturing"):
        replayed(torch.ones(2))


def test_a_sum_bound_anew_is_lost_in_replays():
    sums = [torch.zeros(())]

    def step(batch):
        sums[0] = sums[0] + batch.sum()

    replayed = ReplayedStep(step, GraphLike())
    for _ in range(6):
        replayed(torch.ones(1))
    assert sums[0] == WARM_UP_CALLS + 1


class Failing(GraphLike):
    """Cannot record any more after `good` recordings."""

    def __init__(self, good, error):
        super().__init__()
        self.good, self.error = good, error

    def record(self, function):
        if self.calls.count("record") == self.good:
            function()  # leaves gradients and statistics behind
            raise self.error
        return super().record(function)


class Wrong(GraphLike):
    """Replays something else than was recorded, in the recording `number`."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def record(self, function):
        replay = super().record(function)
        return (lambda: None) if self.calls.count("record") == self.number else replay


NO_CAPTURE = RuntimeError("operation not permitted\nCUDA kernel errors might be reported later")
NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.fixture
def warnings(monkeypatch):
    """What the log warns of, whatever other tests have done to its handlers."""
    texts = []
    log = logging.getLogger("relativenas")
    monkeypatch.setattr(log, "warning", lambda text, *values: texts.append(text % values))
    return texts


@pytest.mark.parametrize(
    ("recorder", "reason"),
    [
        (Failing(0, NO_CAPTURE), "cannot be recorded: operation not permitted"),
        (Failing(2, NO_CAPTURE), "cannot be recorded"),  # in the turn, after the check
        (Failing(3, NO_CAPTURE), "cannot be recorded"),
        (Failing(2, NO_MEMORY), "out of memory"),
        (Wrong(1), "other weights"),
        (Wrong(2), "the loss of the same steps"),
    ],
)
def test_graphs_that_fail_are_given_up_with_one_warning(recorder, reason, warnings):
    expected = make_trainer(make_supernet(), batch_size=4)
    trainer = make_trainer(make_supernet(), recorder=recorder, batch_size=4)
    before = snapshot(trainer.supernet)
    for genotype in (DARTS_V2, RelativeNAS):
        plain = expected.take_turn(genotype, RECIPE, seed=3)
        outcome = trainer.take_turn(genotype, RECIPE, seed=3)
        assert (outcome.loss, outcome.accuracy) == (plain.loss, plain.accuracy)
        assert not changed(outcome.weights, plain.weights)
    assert not changed(before, trainer.supernet.state_dict())
    assert trainer.recorder is None
    (warning,) = warnings
    assert warning.startswith("going on without CUDA graphs: ") and "\n" not in warning
    assert reason in warning


def test_an_error_of_a_step_itself_is_not_taken_for_one_of_graphs():
    trainer = make_trainer(make_supernet(), recorder=GraphLike(), batch_size=4)
    trainer.data.train_set.labels.fill_(7)  # of 3 classes
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        trainer.take_turn(RelativeNAS, RECIPE, seed=3)
    assert trainer.recorder is not None


def test_graphs_are_checked_once_and_change_nothing(warnings):
    recorder = GraphLike()
    trainer = make_trainer(make_supernet(), recorder=recorder, batch_size=4)
    plain = make_trainer(make_supernet(), batch_size=4)
    for genotype, checks in ((RelativeNAS, 1), (DARTS_V2, 0)):
        recorder.calls.clear()
        outcome = trainer.take_turn(genotype, RECIPE, seed=3)
        assert recorder.calls.count("record") == 2 * (1 + checks)
        expected = plain.take_turn(genotype, RECIPE, seed=3)
        assert outcome.loss == expected.loss
        assert not changed(outcome.weights, expected.weights)
    assert STEPS > WARM_UP_CALLS
    assert not warnings


def test_graphs_that_have_not_been_checked_validate_nothing():
    recorder = GraphLike()
    trainer = make_trainer(make_supernet(), recorder=recorder, batch_size=4)
    assert trainer.validate(RelativeNAS) == make_trainer(make_supernet(), batch_size=4).validate(
        RelativeNAS
    )
    assert not recorder.calls


def test_on_needs_a_gpu(monkeypatch, capsys, tmp_path):
    arguments = [*TINY, "--cuda_graphs", "on", "--device", "cpu", "--save", tmp_path / "EXP"]
    status = call_script("train_search", arguments, monkeypatch)
    assert_one_line(status, capsys, "--cuda_graphs", "GPU")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("written", "read"),
    [(True, "on"), (False, "off"), ("auto", "auto"), ("on", "on"), (None, "auto")],
)
def test_settings_with_the_former_switch_are_understood(written, read, tmp_path):
    settings = {"script": "train_search.py", "layers": 5}
    if written is not None:
        settings["cuda_graphs"] = written
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train_search.py"])
        args = train_search.parse_arguments(["--resume", str(tmp_path)])
        changed = train_search.parse_arguments(["--resume", str(tmp_path), "--cuda_graphs", "off"])
    assert (args.cuda_graphs, args.layers) == (read, 5)
    assert changed.cuda_graphs == "off"


class Capture:
    """In place of `torch.cuda.CUDAGraph`; all of them write down what is asked of them."""

    fails_at_end = False

    def __init__(self, log):
        self.log = log

    def capture_begin(self, pool, capture_error_mode):
        self.log.append(("begin", pool, capture_error_mode))

    def capture_end(self):
        self.log.append("end")
        if self.fails_at_end:
            raise RuntimeError("operation failed due to a previous error during capture")

    def replay(self):
        self.log.append("replay")

    def __del__(self):
        self.log.append("dropped")


BEGIN = ("begin", "pool", "thread_local")


@pytest.fixture
def cuda(monkeypatch):
    """A `torch.cuda` without a GPU that does as much as `CudaGraphs` asks for."""
    log = []
    stream = SimpleNamespace(wait_stream=lambda other: None)
    generator = SimpleNamespace(graphsafe_set_state=lambda state: log.append("new state"))
    for name, stand_in in {
        "Stream": lambda device: stream,
        "current_stream": lambda device: log.append(("current", device)) or stream,
        "stream": lambda _: nullcontext(),
        "graph_pool_handle": lambda: "pool",
        "CUDAGraph": lambda: Capture(log),
        "empty_cache": lambda: log.append("emptied"),
        "default_generators": {None: generator},
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return CudaGraphs(torch.device("cpu")), log


def test_a_graph_keeps_the_pool_alive_between_the_others(cuda):
    graphs, log = cuda
    for _ in range(2):
        replay = graphs.record(lambda: log.append("step"))
        replay()
        del replay
    one = [BEGIN, "step", "end", "replay", "dropped"]
    assert log == [BEGIN, "end", *one, *one]  # the first is not dropped, and no cache emptied


def test_the_stream_of_the_own_device_is_waited_for(cuda):
    graphs, log = cuda
    graphs.run(lambda: None)
    assert log == [("current", torch.device("cpu"))]


def test_a_capture_that_lacks_memory_is_tried_again_with_all_that_is_kept(cuda):
    graphs, log = cuda
    graphs.record(lambda: None)
    log.clear()
    errors = [NO_MEMORY]

    def step():
        log.append("step")
        if errors:
            raise errors.pop()

    graphs.record(step)
    assert [entry for entry in log if entry != "dropped"] == [
        BEGIN, "step", "end", "emptied", BEGIN, "step", "end"
    ]  # fmt: skip
    errors += [NO_MEMORY, NO_MEMORY]
    with pytest.raises(torch.OutOfMemoryError):  # once again, and no more
        graphs.record(step)
    assert not errors


def test_a_capture_that_the_gpu_ended_gives_its_reason_and_frees_the_generator(cuda, monkeypatch):
    graphs, log = cuda
    graphs.record(lambda: None)
    monkeypatch.setattr(Capture, "fails_at_end", True)

    def step():
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    with pytest.raises(GraphsFailed, match=r"^operation not permitted when stream is capturing$"):
        graphs.record(step)
    assert log.count("new state") == 1


def test_graphs_are_made_on_a_gpu_unless_turned_off(monkeypatch):
    monkeypatch.setattr(candidate, "CudaGraphs", lambda device: f"graphs on {device}")
    for flags, made in (([], True), (["--cuda_graphs"], True), (["--cuda_graphs", "off"], False)):
        chosen = train_search.parse_arguments(flags).cuda_graphs
        on_gpu = candidate.choose_recorder(chosen, torch.device("cuda", 1))
        assert on_gpu == ("graphs on cuda:1" if made else None)
        assert candidate.choose_recorder(chosen, torch.device("cpu")) is None
