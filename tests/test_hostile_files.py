"""Files of others: checkpoints, images, lists, LMDBs and run folders that mean no good."""

import builtins
import io
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path

import lmdb
import pytest
import torch
from fuzzing import records_of, saved, tiny_checkpoint, zipped
from helpers import (
    assert_one_line,
    call_data_script,
    call_script,
    only_folder,
    write_image_folder,
    write_lmdb_set,
)
from PIL import Image

from dataset.decoding import MAX_IMAGE_PIXELS, UNREADABLE, open_image
from dataset.image_list import read_list
from dataset.lmdb_set import decode_value
from genotypes import load_genotype
from runtime import checkpoint_header
from runtime.checkpoint import load_checkpoint
from runtime.errors import UserError, run_script

# Checkpoints.


class Evil:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return builtins.open, (str(self.path), "w")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("script", ["test", "test_imagenet"])
def test_code_in_a_checkpoint_is_refused_and_not_run(legacy, script, tmp_path, monkeypatch, capsys):
    path = tmp_path / "evil.pt"
    path.write_bytes(saved({"state_dict": Evil(tmp_path / "owned")}, legacy))
    data = ["--data_path", tmp_path] if script == "test_imagenet" else []
    status = call_script(script, ["--model_path", path, *data], monkeypatch)
    assert_one_line(status, capsys, str(path), "never loaded", "open")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_what_pytorch_saves_is_loaded(legacy, tmp_path):
    content = {
        "state_dict": {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.zeros(0)},
        "parameter": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)),
        "plain": [1, 2.5, None, True, "x" * 300, (1, (2,)), {"k": 1 << 100}],
        "shared": torch.zeros(8)[2:6],
    }
    path = tmp_path / "good.pt"
    path.write_bytes(saved(content, legacy))
    loaded = load_checkpoint(path)
    assert loaded["plain"] == content["plain"]
    assert torch.equal(loaded["state_dict"]["a"], content["state_dict"]["a"])
    assert torch.equal(loaded["parameter"], content["parameter"])
    assert torch.equal(loaded["shared"], content["shared"])


def with_pickle(change):
    """A checkpoint whose pickle `change` has changed."""
    records = records_of(saved({"state_dict": {"weight": torch.zeros(4)}}, legacy=False))
    return zipped(records | {"data.pkl": change(records["data.pkl"])})


def pickle_of(content):
    return lambda _: b"\x80\x02" + content + b"."


HUGE = {
    "compressed": lambda: zipped({"data.pkl": b"\x80\x02N.", "data/0": bytes(1 << 20)}, True),
    "records that overlap": lambda: overlapping(),
    "a shape of stride 0": lambda: saved({"a": torch.zeros(1).expand(1 << 40)}, False),
    "a shape of stride 0, legacy": lambda: saved({"a": torch.zeros(1).expand(1 << 40)}, True),
    "more numbers than bytes": lambda: with_pickle(
        lambda content: content.replace(b"K\x04tq", b"J\x00\x00\x00\x7ftq", 1)
    ),
    "more numbers than bytes, legacy": lambda: saved({"a": torch.zeros(4)}, True).replace(
        b"K\x04Nt", b"J\x00\x00\x00\x7fNt", 1
    ),
    "a large bytearray": lambda: with_pickle(
        pickle_of(b"cbuiltins\nbytearray\nJ\x00\x00\x00\x7f\x85R")
    ),
    "a tuple nested many times as a key": lambda: with_pickle(
        pickle_of(b"})" + b"\x85" * 200_000 + b"Ns")
    ),
    "a large pickle": lambda: with_pickle(pickle_of(b"]" * (9 << 20))),
}


def overlapping():
    """A zip file of which two records are the same bytes."""
    content = zipped({"data.pkl": b"\x80\x02N.", "data/0": bytes(5000)})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = archive.getinfo("archive/data/0").file_size
    central = content.index(b"PK\x01\x02", 100)
    entry = content[content.index(b"PK\x01\x02", central + 4) :].split(b"PK\x05\x06")[0]
    more = b"".join(entry.replace(b"data/0", b"data/%d" % n) for n in range(1, 8))
    end = content.index(b"PK\x05\x06")
    count = (2 + 7).to_bytes(2, "little") * 2
    length = (end - central + len(more)).to_bytes(4, "little")
    tail = content[end : end + 8] + count + length + content[end + 16 :]
    assert size == 5000
    return content[:end] + more + tail


@pytest.mark.parametrize("kind", HUGE)
def test_a_small_file_that_claims_much_is_refused(kind, tmp_path):
    path = tmp_path / "bomb.pt"
    content = HUGE[kind]()
    assert len(content) < 16 << 20
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"bomb\.pt: .*never loaded") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_tensors_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_header, "MAX_TENSORS", 5)
    torch.save({"a": [torch.zeros(1)] * 5}, tmp_path / "few.pt")
    load_checkpoint(tmp_path / "few.pt")
    torch.save({"a": [torch.zeros(1) for _ in range(6)]}, tmp_path / "many.pt")
    with pytest.raises(UserError, match="more than 5 tensors"):
        load_checkpoint(tmp_path / "many.pt")


DESCRIPTIONS = {
    "init_channels": [10**9, 0, -1, 1.5, True, None, "8", [8]],
    "layers": [10**9, 0],
    "num_classes": [10**9, torch.zeros(2)],
    "image_size": [10**9, "16"],
    "auxiliary": [1, None],
    "network": ["other", torch.zeros(2), ["cifar"]],
    "set": ["cifar11", 3],
    "genotype": [None, {"normal": []}, "RelativeNAS"],
    "epoch": [-1, "9"],
    "top1": ["99", float("nan")],
    "mean": [None, (0.5, 0.5), (0.5, 0.5, float("nan")), "abc", (10**400, 1, 1)],
    "std": [(0.0, 1.0, 1.0), (1.0, 1.0, float("inf"))],
}


@pytest.mark.parametrize("field", DESCRIPTIONS)
def test_a_description_that_cannot_be_is_refused_by_field(field, tmp_path, monkeypatch, capsys):
    path = tmp_path / "odd.pt"
    for value in DESCRIPTIONS[field]:
        torch.save({**tiny_checkpoint(), field: value}, path)
        status = call_script("test", ["--model_path", path], monkeypatch)
        expected = ["does not describe a network", field if field != "genotype" else ""]
        assert_one_line(status, capsys, str(path), *expected)


@pytest.mark.parametrize("field", ["init_channels", "layers", "num_classes"])
def test_a_network_larger_than_its_weights_takes_no_memory(field, tmp_path, monkeypatch, capsys):
    path = tmp_path / "large.pt"
    largest = 300 if field == "layers" else 1 << 16
    torch.save({**tiny_checkpoint(), field: largest}, path)
    status = call_script("test", ["--model_path", path], monkeypatch)
    assert_one_line(status, capsys, str(path), "another architecture")


def test_a_shape_that_is_not_the_networks_is_named(tmp_path, monkeypatch, capsys):
    content = tiny_checkpoint()
    content["state_dict"]["classifier.bias"] = torch.zeros(7)
    torch.save(content, tmp_path / "odd.pt")
    status = call_script("test", ["--model_path", tmp_path / "odd.pt"], monkeypatch)
    assert_one_line(status, capsys, "odd.pt", "classifier.bias is [7], not [2]")


# Run folders.


@pytest.fixture(scope="module")
def run_folders(tmp_path_factory):
    """A finished search and a finished training."""
    parent = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        data = parent / "data"
        write_image_folder(data, {"train": {"a": 12, "b": 12}, "test": {"a": 2, "b": 2}}, 8)
        common = ["--set", "folder", "--data", data, "--image_size", "8", "--layers", "1"]
        common += ["--init_channels", "2", "--batch_size", "6", "--epochs", "2", "--no-cutout"]
        search = [*common, "--pop_size", "4", "--save", parent / "search" / "EXP"]
        assert call_script("train_search", search, monkeypatch) == 0
        training = [*common, "--save", parent / "train" / "EXP"]
        assert call_script("train", training, monkeypatch) == 0
    return {
        "train_search": only_folder(parent / "search"), "train": only_folder(parent / "train")
    }  # fmt: skip


SCRIPTS = ("train_search", "train")


def resume_damaged(script, name, damage, run_folders, tmp_path, monkeypatch):
    """Resume a copy of a run after `damage` to one of its files; returns the exit status."""
    # A new one each time: the lock of a run that was refused lasts as long as its process.
    folder = Path(tempfile.mkdtemp(dir=tmp_path)) / "run"
    shutil.copytree(run_folders[script], folder)
    damage(folder / name)
    return call_script(script, ["--resume", folder], monkeypatch)


def changed_json(**fields):
    def damage(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return damage


SETTINGS = {
    "layers": ["3", 10**12, -1, [3], {}, True, None, 2.5],
    "epochs": [10**400, 0, "many"],
    "learning_rate": [float("nan"), float("inf"), "0.1", [0.1], -1, None],
    "set": ["cifar11", 7, None],
    "cutout": [1, "no", None],
    "seed": [-1, 2**64],
    "data": [7, "a\0b", None],
    "batch_size": [[[[]]], False],
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_settings_that_no_flag_gives_are_named(script, run_folders, tmp_path, monkeypatch, capsys):
    for name, values in SETTINGS.items():
        for value in values:
            damage = changed_json(**{name: value})
            status = resume_damaged(
                script, "settings.json", damage, run_folders, tmp_path, monkeypatch
            )
            assert_one_line(status, capsys, "settings.json", f"--{name}")


JUNK = [b"", b"[]", b"{", b"\xff\xfe", b"[" * 200_000, b"null", b" " * (2 << 20)]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("name", ["settings.json", "statistics.json", "history.jsonl"])
def test_junk_in_a_run_folder_is_one_line(script, name, run_folders, tmp_path, monkeypatch, capsys):
    for junk in JUNK:
        status = resume_damaged(
            script, name, lambda path, junk=junk: path.write_bytes(junk), run_folders, tmp_path,
            monkeypatch,
        )  # fmt: skip
        expected = name if name != "settings.json" else "not a run folder"
        assert_one_line(status, capsys, str(tmp_path), expected)


def test_statistics_that_are_no_numbers_are_named(run_folders, tmp_path, monkeypatch, capsys):
    for fields in ({"mean": [1, 2]}, {"std": [0, 1, 1]}, {"mean": [float("nan")] * 3}, {"std": 1}):
        status = resume_damaged(
            "train", "statistics.json", changed_json(**fields), run_folders, tmp_path, monkeypatch
        )
        assert_one_line(status, capsys, "statistics.json", *fields)


def test_a_history_that_this_search_has_not_written(run_folders, tmp_path, monkeypatch, capsys):
    def damage_record(**fields):
        def damage(path):
            lines = path.read_text().splitlines()
            lines[1] = json.dumps(json.loads(lines[1]) | fields)
            path.write_text("\n".join(lines) + "\n")

        return damage

    for fields in (
        {"seconds": float("nan")}, {"generation": 7}, {"losses": "ab"}, {"losses": [[]]},
        {"diversity": None}, {"members": [1]}, {"genotypes": None},
        {"seconds": 10**400},
    ):  # fmt: skip
        status = resume_damaged(
            "train_search", "history.jsonl", damage_record(**fields), run_folders, tmp_path,
            monkeypatch,
        )  # fmt: skip
        assert_one_line(status, capsys, "history.jsonl", "line 2")


def changed_checkpoint(change):
    def damage(path):
        content = torch.load(path)
        change(content)
        torch.save(content, path)

    return damage


def set_to(value, *keys):
    """A change that sets the entry at `keys`; `KeyError` as the value takes it out."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        if value is KeyError:
            del content[keys[-1]]
        else:
            content[keys[-1]] = value

    return change


SEARCH_STATES = {
    "no generation": set_to(KeyError, "generation"),
    "a generation beyond the end": set_to(10**9, "generation"),
    "pairs of strangers": set_to([(0, 1), (2, 9)], "pairs"),
    "pairs that are none": set_to([0, 1], "pairs"),
    "pairs done beyond the pairs": set_to(5, "pairs_done"),
    "records of other pairs": set_to(10**9, "history_length"),
    "no learning": set_to(KeyError, "learning"),
    "vectors of another length": set_to([[0.0]] * 4, "learning", "positions"),
    "vectors out of bounds": set_to([[99.0] * 32] * 4, "learning", "positions"),
    "vectors of NaN": set_to([[float("nan")] * 32] * 4, "learning", "velocities"),
    "vectors of text": set_to([["0"] * 32] * 4, "learning", "positions"),
    "other random numbers": set_to({"bit_generator": "MT19937"}, "learning", "random"),
    "random numbers of text": set_to("PCG64", "learning", "random"),
    "no weight set": set_to(KeyError, "weight_set"),
    "a weight set of another": set_to(torch.zeros(9), "weight_set", "classifier.bias"),
    "a weight set of NaN": set_to(torch.full((2,), float("nan")), "weight_set", "classifier.bias"),
}


@pytest.mark.parametrize("change", SEARCH_STATES)
def test_a_state_that_this_search_cannot_have(change, run_folders, tmp_path, monkeypatch, capsys):
    damage = changed_checkpoint(SEARCH_STATES[change])
    status = resume_damaged(
        "train_search", "checkpoint.pt", damage, run_folders, tmp_path, monkeypatch
    )
    assert_one_line(status, capsys, "checkpoint.pt")


def so_far(step, sums):
    return {"step": step, "sums": sums.double(), "seconds": 1.0}


TRAINING_STATES = {
    "no weights": set_to(KeyError, "state_dict"),
    "weights of another": set_to(torch.zeros(9), "state_dict", "classifier.bias"),
    "no epoch": set_to(KeyError, "epoch"),
    "an epoch beyond the end": set_to(10**9, "epoch"),
    "an accuracy of NaN": set_to(float("nan"), "best_top1"),
    "no optimizer": set_to(KeyError, "optimizer"),
    "an optimizer of text": set_to("SGD", "optimizer"),
    "an optimizer without momentum": set_to({}, "optimizer", "state", 0),
    "a momentum of another": set_to(torch.zeros(9), "optimizer", "state", 0, "momentum_buffer"),
    "a momentum of nobody": set_to({"momentum_buffer": None}, "optimizer", "state", 10**9),
    "steps of no image": set_to(so_far(3, torch.zeros(1, 4)), "epoch_so_far"),
    "steps beyond the epoch": set_to(so_far(10**6, torch.ones(1, 4)), "epoch_so_far"),
    "sums of no process": set_to(so_far(0, torch.zeros(0, 4)), "epoch_so_far"),
}


@pytest.mark.parametrize("change", TRAINING_STATES)
def test_a_state_that_this_training_cannot_have(change, run_folders, tmp_path, monkeypatch, capsys):
    damage = changed_checkpoint(TRAINING_STATES[change])
    status = resume_damaged("train", "last.pt", damage, run_folders, tmp_path, monkeypatch)
    assert_one_line(status, capsys, "last.pt")


# Genotype files.


@pytest.mark.parametrize(
    "text", ["__import__('os').mkdir('owned')", "Genotype(normal=[], reduce=[])", " " * (2 << 20)]
)
def test_a_genotype_file_is_data(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "genotype.json").write_text(text)
    with pytest.raises(UserError, match=r"genotype\.json: not a JSON file"):
        load_genotype("genotype.json")
    assert not (tmp_path / "owned").exists()


# Images.


def png_of(width, height):
    """The beginning of a PNG that claims a size."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + b"\x08\x02\0\0\0") + pixels


def jpeg():
    file = io.BytesIO()
    Image.effect_noise((40, 30), 50).convert("RGB").save(file, "JPEG")
    return file.getvalue()


BAD_IMAGES = {
    "50,000 × 50,000": png_of(50_000, 50_000),
    "a little beyond the limit": png_of(MAX_IMAGE_PIXELS, 2)[:100],
    "truncated": jpeg()[:-200],
    "empty": b"",
    "text": b"no image at all",
    "zeros": bytes(1000),
    "a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_is_refused_by_its_name(kind, tmp_path, monkeypatch, capsys):
    images = tmp_path / "images"
    write_image_folder(images, {"train": {"a": 3, "b": 3}, "val": {"a": 1, "b": 1}}, 8, "jpg")
    bad = images / "train" / "b" / "1.jpg"
    bad.write_bytes(BAD_IMAGES[kind])
    save = ["--save", tmp_path / "EXP"]
    folder = ["--set", "folder", "--data", images, *save]
    assert_one_line(call_script("train", folder, monkeypatch), capsys, str(bad))
    imagenet = ["--data_path", images, "--image_size", "8", "--layers", "3", "--workers", "0"]
    imagenet += ["--init_channels", "2", "--batch_size", "6", *save]
    assert_one_line(call_script("train_imagenet", imagenet, monkeypatch), capsys, str(bad))
    lists = ["--image_path", images, "--output_path", tmp_path / "lists"]
    call_data_script("mk_img_list", *lists)
    capsys.readouterr()
    to_lmdb = ["--image_path", images, "--list_path", tmp_path / "lists", "--split", "train"]
    to_lmdb += ["--output_path", tmp_path / "data"]
    assert_one_line(call_script("dataset.img2lmdb", to_lmdb, monkeypatch), capsys, str(bad))


def test_the_largest_image_is_opened():
    side = int(MAX_IMAGE_PIXELS**0.5)
    assert open_image(io.BytesIO(png_of(side, side))).size == (side, side)
    with pytest.raises(UNREADABLE, match="pixels"):
        open_image(io.BytesIO(png_of(side + 1, side + 1)))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_an_animation_the_first_image_is_taken(kind, tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    with open_image(file) as image:
        assert image.convert("RGB").getpixel((4, 4)) == (255, 255, 255)


def test_a_resize_beyond_the_limit_is_refused(tmp_path, monkeypatch, capsys):
    images = tmp_path / "images"
    write_image_folder(images, {"train": {"a": 1}}, 8, "jpg")
    Image.new("L", (60_000, 1)).save(images / "train" / "a" / "long.jpg")
    call_data_script("mk_img_list", "--image_path", images, "--output_path", tmp_path)
    capsys.readouterr()
    arguments = ["--image_path", images, "--list_path", tmp_path, "--output_path", tmp_path / "d"]
    arguments += ["--split", "train", "--image_size", "256"]
    status = call_script("dataset.img2lmdb", arguments, monkeypatch)
    assert_one_line(status, capsys, "long.jpg", "pixels")


# Lists and LMDBs.


@pytest.mark.parametrize(
    "key",
    ["../a/0.jpg", "a/../../b", "/etc/passwd", "a/\0.jpg", "a/" + "x" * 600, "a/\u00fc.jpg",
     "a/\x1b[2J.jpg", "0.jpg", "a/..", "..", "x" * 1_000_000],
)  # fmt: skip
def test_a_key_that_leads_elsewhere_is_refused(key, tmp_path):
    path = tmp_path / "train_datalist.txt"
    path.write_text(f"a/1.jpg\n{key}\n")
    with pytest.raises(UserError, match=r"train_datalist\.txt: .* cannot be a key") as error:
        read_list(path)
    assert len(str(error.value)) < 400


LYING_VALUES = {
    "longer than it is": b"\xc6\x7f\xff\xff\xff" + bytes(100),
    "shorter than it is": b"\xc4\x05" + bytes(100),
    "a list of four billion": b"\xdd\xff\xff\xff\xff" + bytes(100),
    "lists in lists": b"\x91" * 100_000,
    "a dictionary of lists": b"\x81\x91\x01\x01",
    "an extension": b"\xc7\x0c\xff" + bytes(12),
    "only a label": b"\xc4\x02\x00\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", LYING_VALUES)
def test_a_value_of_an_lmdb_that_lies_is_refused(kind):
    with pytest.raises(ValueError, match=r"not an image and its label|truncated"):
        decode_value(LYING_VALUES[kind])


def test_a_lying_value_is_named_by_its_key(tmp_path, monkeypatch, capsys):
    data = write_lmdb_set(tmp_path, {"train": {"a": 3, "b": 3}, "val": {"a": 1, "b": 1}}, 8)
    with lmdb.open(str(data / "train")) as environment, environment.begin(write=True) as t:
        t.put(b"b/1.JPEG", LYING_VALUES["longer than it is"])
    capsys.readouterr()
    arguments = ["--data_path", data, "--image_size", "8", "--layers", "3", "--workers", "0"]
    arguments += ["--init_channels", "2", "--batch_size", "6", "--save", tmp_path / "EXP"]
    status = call_script("train_imagenet", arguments, monkeypatch)
    assert_one_line(status, capsys, "b/1.JPEG", "damaged")


@pytest.mark.parametrize("state", ["{}", "[" * 100_000, '{"complete": 1}', "null", "\udcff"])
def test_a_hostile_state_beside_an_lmdb_is_named(state, tmp_path, monkeypatch, capsys):
    images = tmp_path / "images"
    write_image_folder(images, {"train": {"a": 2}}, 8, "jpg")
    call_data_script("mk_img_list", "--image_path", images, "--output_path", tmp_path)
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "img2lmdb.json").write_bytes(os.fsencode(state))
    capsys.readouterr()
    arguments = ["--image_path", images, "--list_path", tmp_path, "--split", "train"]
    status = call_script(
        "dataset.img2lmdb", [*arguments, "--output_path", tmp_path / "data"], monkeypatch
    )
    assert_one_line(status, capsys, "img2lmdb.json")


def test_an_error_is_one_line_of_printable_text(capsys):
    def fail():
        raise UserError("a\nb\x1b[2J\udcff.jpg")

    with pytest.raises(SystemExit):
        run_script(fail)
    assert capsys.readouterr().err == "error: a\\nb\\x1b[2J\\udcff.jpg\n"
