"""What the benchmarks measure with, and that what they measure needs few packages."""

import ast
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from benchmarks import measuring
from tests.conftest import encode, plain
from tests.test_pipeline import module_file

ROOT = Path(__file__).parents[1]


def packages_of(*modules):
    """The packages that are imported with modules of the project, not counting what functions import when called."""
    seen, found, waiting = set(), set(), {module_file(name) for name in modules}
    while waiting:
        file = waiting.pop()
        seen.add(file)
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            own = {module_file(name) for name in names if name.startswith(("stages", "benchmarks"))}
            waiting |= own - seen - {None}
            found |= {name.split(".")[0] for name in names}
    return found - set(sys.stdlib_module_names) - {"stages", "benchmarks"}


def test_extraction_and_training_need_neither_tensorflow_nor_what_reads_images():
    needed = {"keras", "numpy", "pandas", "pydantic", "ruamel", "tqdm"}
    assert packages_of("stages.features", "stages.train", "stages.fine_tune", "benchmarks.measuring") == needed
    assert packages_of("benchmarks.accelerator") == {*needed, "torch"}


def test_without_files_images_are_noise():
    found = measuring.images_of(None, 3, 8)
    assert (found.shape, found.dtype) == ((3, 8, 8, 3), np.uint8)
    assert found.std() > 50
    assert measuring.weights_of("vgg16", None) is None


def test_photographs_are_spread_over_the_archive_and_taken_again(tmp_path):
    with zipfile.ZipFile(tmp_path / "flowers.zip", "w") as archive:
        for shade in range(0, 250, 50):
            archive.writestr(f"flowers/{shade:03}.jpg", encode(plain(shade), "JPEG"))
    found = measuring.images_of(tmp_path, 3, 4)
    assert found.mean(axis=(1, 2, 3)).round(-1).tolist() == [0, 100, 200]
    found = measuring.images_of(tmp_path, 7, 4)
    assert found.mean(axis=(1, 2, 3)).round(-1).tolist() == [0, 50, 100, 150, 200, 0, 50]


def test_features_come_in_the_order_of_the_index():
    sizes = []

    def run(pixels):
        sizes.append(len(pixels))
        return [pixels[:, 0, 0, :1].astype(np.float32)]

    images = np.arange(100, dtype=np.uint8).repeat(12).reshape(100, 2, 2, 3)
    index = np.arange(150)[::-1] % 100
    found = measuring.in_batches(run, images, index)
    np.testing.assert_array_equal(found[:, 0], index)
    assert sizes == [64, 64, 22]


def test_ways_take_turns(monkeypatch):
    clock, order = iter(np.cumsum([0, 1, 1, 2, 1, 3, 1, 4])), []
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: next(clock))
    ways = {way: lambda given, way=way: order.append(way) or (way, given) for way in ("one", "other")}
    seconds, found = measuring.in_turns(ways, 7, rounds=2)
    assert order == ["one", "other", "one", "other"]
    assert seconds == {"one": [1, 3], "other": [2, 4]}
    assert found == {"one": ("one", 7), "other": ("other", 7)}


def test_a_ratio_is_that_of_the_round_in_the_middle():
    assert measuring.ratio([2, 2, 9], [1, 4, 3]) == 2


def test_the_smallest_cosine_is_that_of_the_worst_row():
    expected = np.array([[1, 0], [0, 2], [3, 0]])
    assert measuring.cosine(5 * expected, expected) == pytest.approx(1)
    assert measuring.cosine(np.array([[1, 0], [3, 4], [1, 0]]), expected) == pytest.approx(0.8)


def test_operations_are_counted_by_hand():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3, strides=2, padding="same")(images)  # 4 x 4 places, 27 weights, 5 filters
    x = keras.layers.DepthwiseConv2D(3)(x)  # 2 x 2 places, 9 weights, 5 channels
    x = keras.layers.Dense(7)(keras.layers.Flatten()(x))
    assert measuring.operations(keras.Model(images, x)) == 2 * (16 * 27 * 5 + 4 * 9 * 5 + 20 * 7)


def test_the_machine_is_told_with_the_packages_that_are_there(monkeypatch):
    monkeypatch.setattr(measuring, "peak", lambda: 5e9)
    monkeypatch.setitem(sys.modules, "torch", None)
    told = measuring.machine(("keras", "torch"))
    assert "5 GFLOP/s" in told
    assert told.endswith(f"keras {keras.__version__}")


def test_the_command_line_names_architectures_with_their_size(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["features", "vgg16@32", "--seconds", "0.5", "--files", "here"])
    given = measuring.arguments("", ["mobilenet_v2@224"])
    assert given.backbones == [("vgg16", 32)]
    assert (given.seconds, given.rounds, given.files) == (0.5, 3, Path("here"))
    monkeypatch.setattr(sys, "argv", ["features"])
    assert measuring.arguments("", ["mobilenet_v2@224"]).backbones == [("mobilenet_v2", 224)]
