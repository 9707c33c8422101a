"""Out of memory: one line with the flags that lower it, on a GPU and on the CPU."""

import re
import resource

import numpy as np
import pytest
import torch
from helpers import assert_one_line, call_script, start_script, write_image_folder

from runtime.errors import UserError
from runtime.out_of_memory import is_out_of_memory, memory_advice

GIGABYTE = 1 << 30

CUDA = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 10.75 GiB of "
    "which 9.12 GiB is free.\nSee documentation for Memory Management"
)
WORKER = RuntimeError("DataLoader worker (pid 71) is killed by signal: Killed. ")

SCRIPTS = {
    "train_search": ("train_search.search", []),
    "train": ("train.fit", ["--set", "digits"]),
    "test": ("test.load_trained_network", ["--model_path", "x"]),
    "train_imagenet": ("train_imagenet.open_images", ["--data_path", "x"]),
    "test_imagenet": (
        "test_imagenet.load_trained_network", ["--data_path", "x", "--model_path", "x"]
    ),
    "dataset.img2lmdb": (
        "dataset.img2lmdb.read_list",
        ["--image_path", "x", "--list_path", "x", "--output_path", "x", "--split", "val"],
    ),
}  # fmt: skip
"""Scripts, what in them is made to run out of memory, and how they are called."""


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("error", [CUDA, MemoryError()], ids=["CUDA", "CPU"])
def test_a_script_names_flags_that_it_has(script, error, tmp_path, monkeypatch, capsys):
    failing, arguments = SCRIPTS[script]

    def fail(*_, **__):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(failing, fail)
    status = call_script(script, arguments, monkeypatch)
    expected = ["error: out of memory", *(["20.00 GiB"] if error is CUDA else [])]
    message = capsys.readouterr().err
    assert status == 2 and message.count("\n") == 1
    assert all(text in message for text in expected)
    assert call_script(script, ["--help"], monkeypatch) == 0
    known = set(re.findall(r"--\w+", capsys.readouterr().out))
    named = set(re.findall(r"--\w+", message))
    assert named and named <= known


def cannot_allocate(make):
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        make()
    return caught.value


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(1 << 45),
        lambda: torch.empty(1 << 40, 1 << 40),
        lambda: np.empty((1 << 45,)),
        lambda: bytearray(1 << 45),
    ],
)
def test_what_the_libraries_raise_is_known(make):
    assert is_out_of_memory(cannot_allocate(make))


@pytest.mark.parametrize(
    "text",
    [
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cudaHostAlloc failed",
    ],
)
def test_what_a_gpus_libraries_raise_is_known(text):
    assert is_out_of_memory(RuntimeError(text))


def raised_in_handling(error):
    """A KeyError that is raised while `error` is handled."""
    later = KeyError("weights")
    later.__context__ = error
    return later


def test_it_is_known_behind_another_error():
    told = pytest.raises(UserError, match=r"out of memory \(20.00 GiB.*lower --batch_size")
    with told, memory_advice("lower --batch_size"):
        raise raised_in_handling(CUDA)
    caused = KeyError("weights")
    caused.__cause__ = CUDA
    assert is_out_of_memory(caused)


def test_what_led_to_no_error_of_its_own_passes():
    assert not is_out_of_memory(raised_in_handling(RuntimeError("mat1 and mat2")))
    told = UserError("checkpoint x: damaged")
    told.__context__ = CUDA
    with pytest.raises(UserError, match="damaged"), memory_advice("lower --batch_size"):
        raise told


def test_other_errors_pass():
    assert is_out_of_memory(WORKER)
    with pytest.raises(RuntimeError, match="mat1 and mat2"), memory_advice("lower --batch_size"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_a_network_too_large_for_the_cpu(tmp_path, monkeypatch, capsys):
    arguments = ["--set", "digits", "--layers", "1", "--init_channels", "300000"]
    status = call_script("train", [*arguments, "--save", tmp_path / "EXP"], monkeypatch)
    assert_one_line(status, capsys, "out of memory", "bytes", "--init_channels", "--batch_size")


def test_images_too_large_for_the_memory_of_a_process(tmp_path):
    write_image_folder(tmp_path / "data", {"train": {"a": 4}, "test": {"a": 4}})
    arguments = ["--set", "folder", "--data", tmp_path / "data", "--image_size", "30000"]
    arguments += ["--save", tmp_path / "EXP"]

    def limit_memory():
        resource.setrlimit(resource.RLIMIT_AS, (8 * GIGABYTE, 8 * GIGABYTE))

    process = start_script("train", arguments, preexec_fn=limit_memory)
    output = process.communicate()[0]
    assert process.returncode == 2
    assert output.count("\n") == 1 and output.startswith("error: out of memory (")
    assert "--image_size" in output
