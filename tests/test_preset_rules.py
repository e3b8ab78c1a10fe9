"""Presets in a study: what the check refuses before anything is fetched, and the stage `weights` after."""

import copy
import json
from pathlib import Path

import pytest

from stages import weights
from stages.artifacts.weights import WEIGHTS_FOLDER
from stages.backbones.known_presets import known_presets, transformer_layers
from stages.core.errors import UserError
from stages.core.files import sha256_of
from stages.core.params import Params
from stages.validation.study import validate_study
from tests.pipeline import ROOT, read_yaml
from tests.presets import save_preset

STUDY = read_yaml((ROOT / "params.yaml").read_text())
PLACE = "a folder, kaggle://owner/model/keras/variation/version or hf://owner/model."
NOT_A_PRESET = (
    "is for presets of KerasHub, and mobilenet_v2 is not one. Give imagenet, random, or a path or URL with its"
)
CASES = [
    ("mobilenet_v2", "preset", {}, f"backbones.x.weights: 'preset' {NOT_A_PRESET}"),
    ("mobilenet_v2", "hf://a/b", {}, f"backbones.x.weights: 'hf://a/b' {NOT_A_PRESET}"),
    ("mobilenet_v2", "kaggle://a/b/c/d/1", {}, f"backbones.x.weights: 'kaggle://a/b/c/d/1' {NOT_A_PRESET}"),
    *[
        (
            "clip_vit_base_patch32",
            place,
            {},
            f"backbones.x.weights: {place!r} is not possible with a preset of KerasHub. Give preset, or the place of "
            f"one: {PLACE}",
        )
        for place in ("imagenet", "random", "https://example.org/a.h5")
    ],
    (
        "preset",
        "random",
        {},
        f"backbones.x.weights: 'random' is not possible with a preset of KerasHub. Give the place of one: {PLACE}",
    ),
    (
        "preset",
        "preset",
        {},
        "backbones.x.weights: preset does not say which one. Give a folder, kaggle://... or hf://....",
    ),
    (
        "dinov2_smal",
        "preset",
        {},
        "backbones.x.architecture: 'dinov2_smal' does not exist (did you mean 'dinov2_small'?). Architectures: ",
    ),
    (
        "dinov2_small",
        "preset",
        {},
        "features.fx.dataset: the images of 'digits' are 32 pixels wide, but dinov2_small has patches of 14 pixels. "
        "Give datasets.digits.image_size a multiple of 14; it was trained on 518.",
    ),
    (
        "swin_tiny_patch4_window7_224",
        "preset",
        {},
        "features.fx.dataset: the images of 'digits' are 32 pixels wide, but swin_tiny_patch4_window7_224 needs at "
        "least 224. Increase datasets.digits.image_size.",
    ),
    (
        "clip_vit_base_patch32",
        "preset",
        {"cut": "block13"},
        "features.fx.cut: clip_vit_base_patch32 has no layer 'block13' (did you mean 'block3'?). Layers: embedding, "
        "pre_normalization, block1,",
    ),
    (
        "siglip_base_patch16_224",
        "preset",
        {"cut": "block3", "pooling": "class_token"},
        "features.fx.pooling: class_token is not possible at block3, whose activations are tokens without one of the "
        "class. Give none, average, max.",
    ),
    (
        "siglip_base_patch16_224",
        "preset",
        {},
        "features.fx.pooling: the activations of attention_pooling cannot be pooled, because they are vectors. Use "
        "pooling: none, or one of these cuts of siglip_base_patch16_224: embedding,",
    ),
    (
        "vgg16",
        "imagenet",
        {"pooling": "class_token_and_average"},
        "features.fx.pooling: class_token_and_average is not possible at block5_pool, whose activations are an image. "
        "Give none, average, max.",
    ),
]


def problems(architecture, place, **features):
    study = copy.deepcopy(STUDY)
    study["backbones"]["x"] = {"architecture": architecture, "weights": place}
    study["features"]["fx"] = {"dataset": "digits", "backbone": "x", "cut": "top", "pooling": "average", **features}
    study["heads"]["hx"] = {"task": "digits-b", "features": "fx"}
    return validate_study(study)[1]


@pytest.mark.parametrize(("architecture", "place", "features", "start"), CASES)
def test_the_check_refuses_what_cannot_be(architecture, place, features, start):
    [problem] = problems(architecture, place, **features)
    assert problem.startswith(start)
    assert problem.endswith(".")


@pytest.mark.parametrize(
    ("architecture", "place", "features"),
    [
        ("clip_vit_base_patch32", "preset", {"cut": "block12", "pooling": "class_token"}),
        ("clip_vit_base_patch32", "hf://keras/clip_vit_base_patch32", {"pooling": "none"}),
        ("resnet_18_imagenet", "preset", {"cut": "stack3"}),
        ("preset", "my_presets/net", {"cut": "anything", "pooling": "class_token"}),
    ],
)
def test_the_check_accepts_layers_that_only_the_preset_knows(architecture, place, features):
    assert problems(architecture, place, **features) == []


def convert(architecture, **entry):
    return weights.main(Params({"backbones": {"b": {"architecture": architecture, "weights": "mine", **entry}}}), "b")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_preset("vit", Path("mine"))
    return Path("mine")


def test_the_weights_file_of_a_preset_can_be_checked(folder):
    sha256 = sha256_of(folder / "model.weights.h5")
    assert convert("preset", sha256=sha256) == f"b-preset, mine, model.weights.h5 sha256 {sha256}"
    before = (WEIGHTS_FOLDER / "b/backbone.json").read_bytes()
    assert json.loads(before)["architecture"] == "b-preset"
    with pytest.raises(UserError) as error:
        convert("preset", sha256="0" * 64)
    assert str(error.value) == (
        f"backbones.b.weights: no weights file of 'mine' has the sha256 {'0' * 64} (model.weights.h5 has {sha256}). "
        "Correct weights or sha256."
    )
    assert (WEIGHTS_FOLDER / "b/backbone.json").read_bytes() == before


def test_a_preset_of_another_architecture_than_named_is_refused(folder):
    with pytest.raises(UserError) as error:
        convert("vit_base_patch16_224_imagenet")
    assert str(error.value) == (
        "backbones.b.weights: 'mine' is a ViTBackbone of 5 layers and 10,080 weights, and not "
        "vit_base_patch16_224_imagenet. Give architecture: preset."
    )
    assert not WEIGHTS_FOLDER.exists() or not list(WEIGHTS_FOLDER.rglob("*"))


def test_equal_presets_give_equal_bytes(folder):
    convert("preset")
    first = (WEIGHTS_FOLDER / "b/backbone.weights.h5").read_bytes()
    convert("preset")
    assert (WEIGHTS_FOLDER / "b/backbone.weights.h5").read_bytes() == first


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"parameters": 86_580_480}, False),  # of dinov2_base, which has the same layers
        ({"patch_size": 16}, False),
        ({"class_name": "DINOV3Backbone"}, False),
    ],
)
def test_a_named_preset_has_its_class_layers_patches_and_size(change, expected):
    known = known_presets()["dinov2_small"]
    preset = {
        "class_name": change.get("class_name", known.class_name),
        "config": {"patch_size": change.get("patch_size", 14)},
    }
    layers = transformer_layers(known.class_name, known.blocks)
    assert known.describes(preset, layers, change.get("parameters", known.parameters)) == expected
