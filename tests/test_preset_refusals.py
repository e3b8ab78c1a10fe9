"""What stages refuse of a preset whose layers the check does not know: one sentence, and nothing half-written."""

import re
import sys
from pathlib import Path

import pytest

from stages import download, features, fine_tune, head, prepare, split, train, weights
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.sources.preset_files import preset_checksum
from tests.pipeline import write_study
from tests.presets import save_preset

FEATURES = {"dataset": "digits", "backbone": "vit", "classes": [0, 1], "cut": "block2"}
NETWORK = {"dataset": "digits", "task": "two", "backbone": "vit"}
FINE_TUNE = {"dataset": "digits", "task": "two", "backbone": "vit", "features": "good", "head": "good-head"}
LAYERS = "Layers: embedding, block1, block2, block3, normalization."
BAD_FEATURES = {
    "wrong-layer": ({"cut": "blok2"}, f"cut: vit-preset has no layer 'blok2' (did you mean 'block2'?). {LAYERS}"),
    "no-such-layer": (
        {"cut": ["block1", "pool4"]},
        rf"cut: vit-preset has no layer 'pool4'( \(did you mean 'block\d'\?\))?. {re.escape(LAYERS)}",
    ),
    "same-layer": (
        {"cut": ["top", "normalization"]},
        "cut: 'top' and 'normalization' are the same layer, normalization. Leave one of them out.",
    ),
    "wrong-pooling": (
        {"backbone": "siglip", "pooling": "class_token"},
        "pooling: class_token is not possible at block2, whose activations are tokens without one of the class. Give "
        "none, average, max.",
    ),
    "both": (
        {"backbone": "resnet", "cut": "top", "pooling": "class_token_and_average"},
        r"pooling: class_token_and_average is not possible at \w+, whose activations are an image. Give none, average, "
        "max.",
    ),
    "of-a-vector": (
        {"backbone": "siglip", "cut": "top", "pooling": "average"},
        "pooling: average is not possible at attention_pooling, whose activations are a vector. Give none.",
    ),
}
BAD_NETWORKS = {
    "cut": ({"cut": "block4"}, f"cut: vit-preset has no layer 'block4' (did you mean 'block3'?). {LAYERS}"),
    "trainable": (
        {"trainable": "blok3"},
        f"trainable: vit-preset has no layer 'blok3' (did you mean 'block3'?). {LAYERS}",
    ),
    "above-cut": (
        {"cut": "block1", "trainable": "block3"},
        "trainable: vit-preset has no layer 'block3' up to the cut 'block1' (did you mean 'block1'?). Layers: "
        "embedding, block1.",
    ),
    "number": ({"trainable": 6}, f"trainable: vit-preset has fewer than 6 layers. {LAYERS}"),
    "pooling": (
        {"backbone": "resnet", "pooling": "class_token"},
        r"pooling: class_token is not possible at \w+, whose activations are an image. Give none, average, max.",
    ),
}
BAD_FINE_TUNES = {
    "layer": (
        {"unfreeze": "blok2"},
        "unfreeze: vit-preset has no layer 'blok2' up to the cut 'block2' (did you mean 'block2'?). Layers: embedding, "
        "block1, block2.",
    ),
    "above": (
        {"unfreeze": "normalization"},
        "unfreeze: vit-preset has no layer 'normalization' up to the cut 'block2'. Layers: embedding, block1, block2.",
    ),
    "features": (
        {"unfreeze": "block1", "features": "other"},
        "features: training from 'block1' upward cannot start from 'other' (cut block2, pooling none). Give features "
        "with pooling: none and one of the cuts embedding, or the features of the head, to start from the images.",
    ),
}
PATCHES = "its patches have 8 pixels a side. Give the dataset as image_size a multiple of 8; it was trained on 32."
SIZES = {
    "odd": (
        30,
        "its patches have 8 pixels a side. Give the dataset as image_size a multiple of 8; it was trained on 32.",
    ),
    "larger": (
        36,
        "its patches have 8 pixels a side. Give the dataset as image_size a multiple of 8; it was trained on 32.",
    ),
    "small": (8, "its windows need images of at least 16 pixels. Increase image_size of the dataset."),
}


def entries():
    """All entries: one that is good, and those of the tables above."""
    return {
        "features": {
            "good": {**FEATURES, "pooling": "average"},
            "other": FEATURES,
            "paths": {**FEATURES, "backbone": "resnet", "cut": "stack0_block0_1_relu"},
            **{name: FEATURES | keys for name, (keys, _) in BAD_FEATURES.items()},
            **{
                f"size-{name}": {
                    **FEATURES,
                    "cut": "top",
                    "dataset": name,
                    "backbone": "swin" if name == "small" else "vit",
                }
                for name in SIZES
            },
        },
        "heads": {
            "good-head": {"task": "two", "features": "good"},
            "start": {"task": "two", "features": "paths", "start_from": "backbone"},
        },
        "networks": {name: NETWORK | keys for name, (keys, _) in BAD_NETWORKS.items()},
        "fine_tunes": {name: FINE_TUNE | keys for name, (keys, _) in BAD_FINE_TUNES.items()},
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with images, a task, converted presets, features and a head."""
    folder, patch = tmp_path_factory.mktemp("refusals"), pytest.MonkeyPatch()
    patch.chdir(folder)
    families = ("vit", "siglip", "resnet", "swin")
    for family in families:
        save_preset(family, folder / "mine" / family)
    sizes = {"digits": 32, **{name: size for name, (size, _) in SIZES.items()}}
    study = {
        "seed": 0,
        "datasets": {name: {"source": "digits", "image_size": size} for name, size in sizes.items()},
        "folders": {},
        "tasks": {"two": {"dataset": "digits", "include": [0, 1], "validation": 0.2, "test": 0.2, "max_per_class": 20}},
        "backbones": {
            family: {
                "architecture": "preset",
                "weights": f"mine/{family}",
                "sha256": preset_checksum(folder / "mine" / family),
            }
            for family in families
        },
        "training": {"epochs": 1, "learning_rate": 0.001, "optimizer": "adam", "early_stopping": None, "repeats": 1},
        **entries(),
    }
    study["training"] |= {"batch_size": 16, "max_train_per_class": None}
    write_study(folder, study)
    params = Params.read()
    for name in sizes:
        download.main(params, name)
        prepare.main(params, name)
    split.main(params, "two")
    for family in families:
        weights.main(params, family)
    for name in ("good", "other", "paths"):
        features.main(params, name)
    head.main(params, "good-head")
    patch.undo()
    return folder


def refusal(stage, section, entry, monkeypatch, capsys):
    """The sentence with which a stage ends, which must leave all files as they are."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    name = stage.__name__.rpartition(".")[2]
    monkeypatch.setattr(sys, "argv", [f"stages/{name}.py", entry])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run_stage(stage.main, section)
    assert end.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{name}: ") and err.endswith(".\n") and err.count("\n") == 1
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    return err.removeprefix(f"{name}: ").rstrip("\n")


CASES = [
    (stage, section, entry, expected)
    for stage, section, table in (
        (features, "features", BAD_FEATURES),
        (train, "networks", BAD_NETWORKS),
        (fine_tune, "fine_tunes", BAD_FINE_TUNES),
    )
    for entry, (_, expected) in table.items()
]


@pytest.mark.parametrize(("stage", "section", "entry", "expected"), CASES, ids=[case[2] for case in CASES])
def test_layers_and_poolings_that_a_preset_does_not_have(project, stage, section, entry, expected, monkeypatch, capsys):
    monkeypatch.chdir(project)
    sentence = refusal(stage, section, entry, monkeypatch, capsys)
    start = f"{section}.{entry}."
    assert sentence == start + expected or re.fullmatch(re.escape(start) + expected, sentence), sentence


@pytest.mark.parametrize("name", SIZES)
def test_images_of_a_size_that_a_preset_does_not_take(project, name, monkeypatch, capsys):
    monkeypatch.chdir(project)
    size, reason = SIZES[name]
    sentence = refusal(features, "features", f"size-{name}", monkeypatch, capsys)
    family = "swin" if name == "small" else "vit"
    assert sentence == f"backbones.{family}: {family}-preset does not take images of {size} pixels, because {reason}"


def test_a_head_cannot_start_from_layers_that_other_paths_bypass(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    assert refusal(head, "heads", "start", monkeypatch, capsys).startswith(
        "heads.start.start_from: backbone is not valid, because other paths bypass the cut 'stack0_block0_1_relu' of "
        "features.paths. Use start_from: random, or one of these cuts of resnet-preset: "
    )
