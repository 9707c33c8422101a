"""The scripts as a user runs them: the whole way on digits, and every mistake a user can make."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest
import torch
from helpers import (
    ROOT,
    assert_one_line,
    call_script,
    only_folder,
    run_to_the_end,
    start_script,
    write_image_folder,
)

from genotypes import DARTS_V1, RelativeNAS, save_genotype
from model import NetworkCIFAR
from runtime.errors import UserError, run_script
from utils import clip_gradients

SMALL = ["--set", "digits", "--layers", "3", "--init_channels", "2"]


def test_search_train_and_test_on_digits(tmp_path):
    output = run_to_the_end(
        "train_search",
        "--set digits --layers 3 --init_channels 8 --pop_size 2 --epochs 1 --batch_size 64 "
        f"--no-cutout --target_layers 3 --save {tmp_path}/EXP".split(),
    )
    folder = only_folder(tmp_path)
    assert "best genotype: Genotype(" in output
    assert re.search(r"validation accuracy with the shared weights: \d+\.\d\d %", output)
    assert f"run folder: {folder}" in output
    # The command it prints is run as it stands, but for where the run goes.
    command = shlex.split(re.search(r"train it from scratch: (.*)", output)[1])
    command += ["--save", str(tmp_path / "trained" / "EXP")]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    best = only_folder(tmp_path / "trained") / "best.pt"
    output = run_to_the_end("test", ["--model_path", best])
    accuracy = float(re.search(r"top-1 accuracy +(\d+\.\d+) %", output)[1])
    assert accuracy > 97
    error = float(re.search(r"error rate +(\d+\.\d+) %", output)[1])
    assert error == pytest.approx(100 - accuracy)
    assert torch.load(best)["top1"] == pytest.approx(accuracy, abs=0.005)
    assert re.search(r"parameters +0\.\d\d M", output)
    assert re.search(r"multiply-adds +\d+\.\d M", output)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_published_state_dict_is_tested_with_flags(
    prefix, wrapped, tmp_path, monkeypatch, capsys
):
    network = NetworkCIFAR(2, 10, 3, True, RelativeNAS)
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    path = tmp_path / "published.pt"
    torch.save({"state_dict": state} if wrapped else state, path)
    for flags in ([], ["--auxiliary"]):
        arguments = [*SMALL, *flags, "--model_path", path]
        assert call_script("test", arguments, monkeypatch) == 0
    assert "test images     360 of digits" in capsys.readouterr().out


def test_a_folder_of_images_is_searched_trained_and_tested(tmp_path, monkeypatch, capsys):
    data = tmp_path / "images"
    classes = {"cat": 8, "dog": 8, "eel": 8}
    write_image_folder(data, {"train": classes, "val": classes})
    common = ["--data", data, "--image_size", "12", "--layers", "3", "--init_channels", "2"]
    search = ["--set", "folder", "--pop_size", "2", "--epochs", "1", "--save", tmp_path / "s" / "S"]
    assert call_script("train_search", common + search, monkeypatch) == 0
    genotype = only_folder(tmp_path / "s") / "genotype.json"
    train = ["--set", "folder", "--arch", genotype, "--epochs", "1", "--save", tmp_path / "t" / "T"]
    assert call_script("train", common + train, monkeypatch) == 0
    folder = only_folder(tmp_path / "t")
    statistics = json.loads((folder / "statistics.json").read_text())
    checkpoint = torch.load(folder / "best.pt")
    assert checkpoint["mean"] == pytest.approx(statistics["mean"])
    assert checkpoint["num_classes"] == 3
    capsys.readouterr()
    # The checkpoint brings the set's name, the size of its images, their mean and deviation.
    # Training images are not needed any more.
    shutil.rmtree(data / "train")
    arguments = ["--data", data, "--model_path", folder / "best.pt"]
    assert call_script("test", arguments, monkeypatch) == 0
    assert "24 of folder" in capsys.readouterr().out


def test_gpus_without_a_gpu_is_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments = [*SMALL, "--epochs", "1", "--gpus", "0,1", "--save", tmp_path / "EXP"]
    assert call_script("train", arguments, monkeypatch) == 0
    assert "warning: --gpus: PyTorch sees no CUDA GPU" in capsys.readouterr().err


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save(NetworkCIFAR(2, 10, 3, False, RelativeNAS).state_dict(), path)
    return path


@pytest.mark.parametrize("script", ["train", "test"])
def test_unknown_arch(script, checkpoint, monkeypatch, capsys):
    arguments = [*SMALL, "--arch", "DARTS_V3"]
    arguments += ["--model_path", checkpoint] if script == "test" else []
    status = call_script(script, arguments, monkeypatch)
    assert_one_line(status, capsys, "DARTS_V3", "NASNet", "RelativeNAS")


def test_a_genotype_file_that_is_not_one(tmp_path, monkeypatch, capsys):
    path = tmp_path / "genotype.json"
    save_genotype(DARTS_V1._replace(normal=[("conv_9x9", 0), ("skip_connect", 1)]), path)
    status = call_script("train", [*SMALL, "--arch", path], monkeypatch)
    assert_one_line(status, capsys, str(path), "normal[0]", "conv_9x9")


@pytest.mark.parametrize("size", ["0", "3", "-2"])
def test_odd_or_no_population(size, tmp_path, monkeypatch, capsys):
    arguments = [*SMALL, "--pop_size", size, "--save", tmp_path / "EXP"]
    status = call_script("train_search", arguments, monkeypatch)
    assert_one_line(status, capsys, f"--pop_size {size}", "even")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_architecture(checkpoint, monkeypatch, capsys):
    arguments = [*SMALL, "--arch", "DARTS_V1", "--model_path", checkpoint]
    status = call_script("test", arguments, monkeypatch)
    assert_one_line(status, capsys, str(checkpoint), "cells.0._ops", "--arch")


def test_a_checkpoint_with_other_classes(checkpoint, tmp_path, monkeypatch, capsys):
    write_image_folder(tmp_path / "data", {"train": {"a": 1}, "test": {"a": 1}})
    arguments = ["--layers", "3", "--init_channels", "2", "--model_path", checkpoint]
    arguments += ["--set", "folder", "--data", tmp_path / "data"]
    status = call_script("test", arguments, monkeypatch)
    assert_one_line(status, capsys, "10 classes", "has 1")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "truncated", "flipped"])
def test_a_corrupt_checkpoint(content, checkpoint, monkeypatch, capsys):
    whole = checkpoint.read_bytes()
    if content == "truncated":
        content = whole[: len(whole) // 2]
    elif content == "flipped":
        content = whole[:100] + bytes(byte ^ 0xFF for byte in whole[100:400]) + whole[400:]
    checkpoint.write_bytes(content)
    status = call_script("test", [*SMALL, "--model_path", checkpoint], monkeypatch)
    assert_one_line(status, capsys, str(checkpoint))


def test_a_missing_checkpoint(tmp_path, monkeypatch, capsys):
    status = call_script("test", [*SMALL, "--model_path", tmp_path / "none.pt"], monkeypatch)
    assert_one_line(status, capsys, "none.pt", "No such file")


SCRIPTS_WITH_DATA = ["train_search", "train"]


@pytest.mark.parametrize("script", SCRIPTS_WITH_DATA)
@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({}, ["train", "not a folder"]),
        ({"train": {}, "test": {"a": 1}}, ["train", "no class folders"]),
        ({"train": {"a": 0}, "test": {"a": 1}}, ["no images", "train"]),
        ({"train": {"a": 4, "b": 4}, "test": {"a": 1, "c": 1}}, ["differ", "b, c"]),
    ],
)
def test_a_folder_that_does_not_fit(script, splits, expected, tmp_path, monkeypatch, capsys):
    data = tmp_path / "data"
    write_image_folder(data, splits)
    for split in splits:
        (data / split).mkdir(parents=True, exist_ok=True)
    arguments = ["--set", "folder", "--data", data, "--save", tmp_path / "runs" / "EXP"]
    status = call_script(script, arguments, monkeypatch)
    assert_one_line(status, capsys, str(data), *expected)


def test_an_unreadable_image_is_named_at_once(tmp_path, monkeypatch):
    from dataset import image_folder

    write_image_folder(tmp_path, {"train": {"a": 60}, "test": {"a": 1}})
    (tmp_path / "train" / "a" / "0.png").write_text("hello")
    decoded = []
    decode_image = image_folder.decode_image

    def slow_decode_image(file, image_size):
        decoded.append(file)
        time.sleep(0.01)
        return decode_image(file, image_size)

    monkeypatch.setattr(image_folder, "decode_image", slow_decode_image)
    with pytest.raises(UserError, match=r"a/0\.png"):
        image_folder.load_image_folder(tmp_path, "train", 8)
    assert len(decoded) < 60


@pytest.mark.parametrize("script", [*SCRIPTS_WITH_DATA, "train_imagenet"])
def test_a_failed_start_leaves_no_run_folder(script, tmp_path, monkeypatch, capsys):
    data = ["--set", "folder", "--data"] if script in SCRIPTS_WITH_DATA else ["--data_path"]
    arguments = [*data, tmp_path / "nowhere", "--save", tmp_path / "runs" / "EXP"]
    assert_one_line(call_script(script, arguments, monkeypatch), capsys, "nowhere")
    assert not list(tmp_path.glob("runs/*"))


def test_a_run_that_had_begun_keeps_its_folder_and_a_resumed_one_too(tmp_path, monkeypatch, capsys):
    arguments = [*SMALL, "--epochs", "1", "--save", tmp_path / "EXP"]
    assert call_script("train", [*arguments, "--learning_rate", "1e30"], monkeypatch) == 2
    folder = only_folder(tmp_path)
    assert "infinite or NaN" in capsys.readouterr().err
    (folder / "statistics.json").write_text("{")
    status = call_script("train", ["--resume", folder], monkeypatch)
    assert_one_line(status, capsys, "statistics.json")
    assert {"settings.json", "log.txt"} <= {path.name for path in folder.iterdir()}


def test_an_output_folder_that_is_not_writable(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("mine")
    for script in SCRIPTS_WITH_DATA:
        arguments = [*SMALL, "--save", tmp_path / "file" / "EXP"]
        status = call_script(script, arguments, monkeypatch)
        assert_one_line(status, capsys, f"--save {tmp_path}/file/EXP")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_mistake_prints_no_traceback_in_a_process_of_its_own(tmp_path):
    process = start_script("train", ["--arch", "DARTS_V3", "--save", tmp_path / "EXP"])
    output, _ = process.communicate()
    assert process.returncode == 2
    assert output.count("\n") == 1 and "DARTS_V3" in output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "weight_set-generation-2.pt",
        "sub/weights.pt",
        "/tmp/weights.pt",
        "checkpoint.pt",
        "log.txt",
        ".",
        "..",
        "a.tmp",
    ],
)
def test_the_weight_set_overwrites_nothing(name, tmp_path, monkeypatch, capsys):
    arguments = [*SMALL, "--model_path", name, "--save", tmp_path / "EXP"]
    assert_one_line(call_script("train_search", arguments, monkeypatch), capsys, name)
    assert not list(tmp_path.iterdir())


def test_a_single_training_image_is_too_few(tmp_path, monkeypatch, capsys):
    write_image_folder(tmp_path / "data", {"train": {"a": 1}, "test": {"a": 1}})
    arguments = ["--set", "folder", "--data", tmp_path / "data", "--save", tmp_path / "EXP"]
    assert_one_line(call_script("train", arguments, monkeypatch), capsys, "batch norm needs two")


def test_a_batch_of_one_is_too_small_for_the_search(tmp_path, monkeypatch, capsys):
    arguments = [*SMALL, "--batch_size", "1", "--save", tmp_path / "EXP"]
    assert_one_line(call_script("train_search", arguments, monkeypatch), capsys, "--batch_size 1")


def test_ascii_is_enough_for_the_output(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    process = subprocess.run(
        [sys.executable, "test.py"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert r"M at 16\xd716" in process.stdout


def test_a_run_folder_may_have_a_name_that_is_not_utf_8(tmp_path, monkeypatch):
    parent = tmp_path / os.fsdecode(b"caf\xe9")
    arguments = [*SMALL, "--epochs", "1", "--save", parent / "EXP"]
    assert call_script("train", arguments, monkeypatch) == 0
    folder = only_folder(parent)
    assert r"caf\udce9" in (folder / "log.txt").read_text(encoding="utf-8")
    assert (folder / "report.html").exists()
    assert call_script("train", ["--resume", folder], monkeypatch) == 0
    assert call_script("test", ["--model_path", folder / "best.pt"], monkeypatch) == 0


RUN_ALL = """
import runpy, sys
root, *scripts = sys.argv[1:]
for script in scripts:
    path = list(sys.path)
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        assert not end.code, script
    # The next one must find the project's modules itself.
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(root) and "site-packages" not in file:
            del sys.modules[name]
"""


def test_the_scripts_need_no_folder_on_the_path():
    """As with `python -I`, `python -P` and PYTHONSAFEPATH=1."""
    scripts = [*ROOT.glob("*.py"), *ROOT.glob("dataset/*.py"), *ROOT.glob("benchmarks/*.py")]
    scripts += ROOT.glob("docs/*.py")
    scripts = [str(path) for path in scripts if "run_script(main)" in path.read_text()]
    assert len(scripts) > 12
    process = subprocess.run(
        [sys.executable, "-I", "-c", RUN_ALL, str(ROOT), *scripts], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("usage: ") == len(scripts)


def test_no_clipping_is_not_no_training():
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    clip_gradients([parameter], 0)
    assert parameter.grad.tolist() == [3.0, 4.0]
    clip_gradients([parameter], 1)
    assert parameter.grad.tolist() == pytest.approx([0.6, 0.8])


def test_an_error_is_one_line_of_printable_text(capsys):
    def fail():
        raise UserError("a\nb\x1b[2J\udcff.jpg")

    with pytest.raises(SystemExit):
        run_script(fail)
    assert capsys.readouterr().err == "error: a\\nb\\x1b[2J\\udcff.jpg\n"
