"""Presets in a study: what the check refuses before anything is fetched, and the stage `weights` after."""

import argparse
import copy
import json
from pathlib import Path

import pytest
import yaml

from stages import check, weights
from stages.artifacts.weights import WEIGHTS_FOLDER, WeightsRecord, write_weights_record
from stages.backbones.known_presets import known_presets, transformer_layers
from stages.config.backbones import BackboneConfig
from stages.core.errors import UserError
from stages.core.params import Params
from stages.sources.preset_files import preset_checksum
from stages.validation.preset_folders import preset_folder_problems
from stages.validation.study import validate_study
from tests.pipeline import ROOT, read_yaml
from tests.presets import save_preset
from tests.transformers_models import write_model

STUDY = read_yaml((ROOT / "params.yaml").read_text())
PLACE = "a folder, kaggle://owner/model/keras/variation/version or hf://owner/model@commit."
COMMIT = "0123456789abcdef0123456789abcdef01234567"
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
    *[
        (
            architecture,
            place,
            {},
            f"backbones.x.weights: {place!r} can have other files tomorrow. Give hf://a/b@ and the 40 digits of a "
            "commit on https://huggingface.co/a/b/commits/main, or give sha256.",
        )
        for architecture, place in (
            ("preset", "hf://a/b"),
            ("clip_vit_base_patch32", "hf://a/b@main"),
            ("preset", f"hf://a/b@{COMMIT[:7]}"),
        )
    ],
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
        "siglip2_so400m_patch14_384",
        "preset",
        {"cut": "block3"},
        "features.fx.dataset: the images of 'digits' are 32 pixels wide, but siglip2_so400m_patch14_384 has patches of "
        "14 pixels. Give datasets.digits.image_size 384, on which it was trained, or a multiple of 14.",
    ),
    *[
        (architecture, place, {"cut": ["a", "b", "a"]}, "features.fx.cut: 'a' and 'a' are the same layer, a. Leave one")
        for architecture, place in (
            ("preset", f"hf://a/b@{COMMIT}"),
            ("preset", "my_presets/net"),
            ("resnet_18_imagenet", "preset"),
        )
    ],
    *[
        (
            architecture,
            "preset",
            {"cut": "a", "pooling": pooling},
            f"features.fx.pooling: {pooling} is not possible at a, whose activations are an image. Give none, ",
        )
        for architecture, pooling in (
            ("resnet_18_imagenet", "class_token"),
            ("efficientnet_b0_ra_imagenet", "class_token_and_average"),
        )
    ],
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
    cut = study["features"]["fx"]["cut"]
    study["heads"]["hx"] = {"task": "digits-b", "features": "fx", "cut": None if isinstance(cut, str) else cut[0]}
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
        ("clip_vit_base_patch32", f"hf://keras/clip_vit_base_patch32@{COMMIT}", {"pooling": "none"}),
        ("resnet_18_imagenet", "preset", {"cut": "stack3"}),
        ("preset", "my_presets/net", {"cut": "anything", "pooling": "class_token"}),
    ],
)
def test_the_check_accepts_layers_that_only_the_preset_knows(architecture, place, features):
    assert problems(architecture, place, **features) == []


START = "fine_tunes.mx.features: training "
IMAGES = "the features of the head, to start from the images"


@pytest.mark.parametrize(
    ("features", "fine_tune", "message"),
    [
        ({}, {"tuning": "bias"}, f"{START}cannot start from 'lower' with tuning, which trains"),
        (
            {},
            {"unfreeze": "b", "augmentation": {"rotation": 5}},
            f"{START}cannot start from 'lower' with augmentation.",
        ),
        (
            {"pooling": "max"},
            {"unfreeze": "b"},
            f"{START}from 'b' upward cannot start from 'lower' (cut a, pooling max). Give {IMAGES}.",
        ),
        (
            {},
            {"unfreeze": "all"},
            f"{START}from 'all' upward cannot start from 'lower' (cut a, pooling none). Give {IMAGES}.",
        ),
        (
            {},
            {"unfreeze": "a"},
            f"{START}from 'a' upward cannot start from 'lower' (cut a, pooling none). Give {IMAGES}.",
        ),
        ({}, {"unfreeze": "b"}, None),
        ({}, {"unfreeze": 2}, None),
    ],
)
@pytest.mark.parametrize("architecture", ["preset", "resnet_18_imagenet"])
def test_rules_of_fine_tunes_that_need_no_names_of_layers(features, fine_tune, message, architecture):
    study = copy.deepcopy(STUDY)
    place = f"hf://a/b@{COMMIT}" if architecture == "preset" else "preset"
    study["backbones"]["x"] = {"architecture": architecture, "weights": place}
    own = {"dataset": "digits", "backbone": "x"}
    study["features"] |= {"fx": {**own, "cut": "c", "pooling": "average"}, "lower": {**own, "cut": "a", **features}}
    study["heads"]["hx"] = {"task": "digits-b", "features": "fx"}
    study["fine_tunes"]["mx"] = {**own, "task": "digits-b", "features": "lower", "head": "hx", **fine_tune}
    problems = validate_study(study)[1]
    assert [problem[: len(message or "")] for problem in problems] == ([message] if message else [])


def convert(architecture, **entry):
    return weights.main(Params({"backbones": {"b": {"architecture": architecture, "weights": "mine", **entry}}}), "b")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_preset("vit", Path("mine"))
    return Path("mine")


def test_the_files_of_a_preset_can_be_checked(folder):
    sha256 = preset_checksum(folder)
    assert convert("preset", sha256=sha256) == f"b-preset, mine, sha256 {sha256}"
    before = (WEIGHTS_FOLDER / "b/backbone.json").read_bytes()
    record = json.loads(before)
    assert (record["architecture"], record["preset"]["sha256"]) == ("b-preset", sha256)
    with pytest.raises(UserError) as error:
        convert("preset", sha256="0" * 64)
    assert str(error.value) == (
        f"backbones.b.sha256: checksum mismatch: the files of 'mine' have {sha256}, the study expects {'0' * 64}. Give "
        f"`sha256: {sha256}` if these files are the right ones."
    )
    assert (WEIGHTS_FOLDER / "b/backbone.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "is_other"),
    [
        ("model.weights.h5", True),
        ("config.json", True),
        ("image_converter.json", True),  # how pixels are scaled
        ("model_00001.weights.h5", True),
        ("model.safetensors", True),
        ("metadata.json", False),  # the date
        ("README.md", False),
    ],
)
def test_the_checksum_is_of_all_files_that_decide_what_a_preset_computes(tmp_path, name, is_other):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.weights.h5").write_bytes(b"weights")
    before = preset_checksum(tmp_path)
    (tmp_path / name).write_text("changed")
    assert (preset_checksum(tmp_path) != before) == is_other


def saved_config(folder, class_name, **config):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"class_name": class_name, "config": config, "registered_name": f"keras_hub>{class_name}"}
    (folder / "config.json").write_text(json.dumps(content))
    return preset_checksum(folder)


def folder_problems(place="mine", architecture="preset", **entry):
    entry = BackboneConfig(architecture=architecture, weights=place, **entry)
    return list(preset_folder_problems({"x": entry}))


@pytest.mark.parametrize(
    ("class_name", "config"),
    [
        ("ViTBackbone", {}),
        ("ResNetBackbone", {}),
        ("CLIPBackbone", {"vision_encoder": {"class_name": "CLIPVisionEncoder"}}),
        ("SigLIPBackbone", {"vision_encoder": {"class_name": "SigLIPVisionEncoder"}}),
    ],
)
@pytest.mark.parametrize("architecture", ["preset", "vit_base_patch16_224_imagenet"])
def test_the_check_accepts_folders_of_supported_presets(tmp_path, monkeypatch, class_name, config, architecture):
    monkeypatch.chdir(tmp_path)
    sha256 = saved_config(Path("mine"), class_name, **config)
    assert folder_problems(architecture=architecture, sha256=sha256) == []


@pytest.mark.parametrize(
    ("place", "content", "message"),
    [
        ("nowhere", None, ".weights: 'nowhere' is not a preset of KerasHub (there is no such folder). Give the folder"),
        ("~/nowhere", None, ".weights: '~/nowhere' is not a preset of KerasHub (there is no such folder). Give the"),
        ("mine", None, ".weights: 'mine' is not a preset of KerasHub (it has no config.json). Give the folder that"),
        (
            "mine",
            "{",
            ".weights: 'mine' is not a preset of an image backbone (its config.json is not JSON). Give another",
        ),
        ("mine", "[]", ".weights: 'mine' is not a preset of an image backbone (its config.json has no class). Give"),
        (
            "mine",
            '{"registered_name": "keras_hub>BertBackbone", "class_name": "BertBackbone", "config": {}}',
            ".weights: 'mine' is not a preset of an image backbone (its class is BertBackbone; possible are ViT, ",
        ),
        (
            "mine",
            '{"registered_name": "-", "class_name": "A", "config": {"vision_encoder": {"class_name": "Gemma3Vision"}}}',
            ".weights: 'mine' is not a preset of an image backbone (its class is Gemma3Vision; possible are ViT, ",
        ),
        ("mine", '{"registered_name": "-", "config": [1]}', ".weights: 'mine' is not a preset of an image backbone"),
        ("mine", '{"registered_name": "-", "class_name": []}', ".weights: 'mine' is not a preset of an image backbone"),
        ("data/weights/x", "{}", ".weights: 'data/weights/x' is in a folder that stages write to. Move it to another"),
        ("mine", "{}", ".weights: 'mine' has no checksum. Give `sha256: f0c39c91"),
    ],
)
def test_the_check_refuses_folders_without_a_usable_preset(tmp_path, monkeypatch, place, content, message):
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    if content:
        Path(place).mkdir(parents=True, exist_ok=True)
        Path(place, "config.json").write_text(content)
    [problem] = folder_problems(place)
    assert problem.startswith(f"backbones.x{message}")
    assert problem.endswith(".")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"model_type": "clip"},
            ["config.json has model_type 'clip', which", "the preset does not say how"],
        ),
        (
            {"architecture": "vit_base_patch16_224"},
            ["config.json has architecture 'vit_b", "config.json cannot be"],
        ),
        (
            {"model_type": "vit", "hidden_act": "relu"},
            ['config.json cannot be used (hidden_act is "relu', "the"],
        ),
    ],
)
def test_the_check_refuses_models_that_cannot_be_converted(tmp_path, monkeypatch, config, expected):
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/config.json").write_text(json.dumps(config))
    problems = folder_problems()
    assert len(problems) == len(expected)
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(f"backbones.x.weights: {start}")


def test_the_check_accepts_a_model_of_transformers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(Path("mine"), "dinov2")
    assert folder_problems(sha256=preset_checksum(Path("mine"))) == []


def test_a_changed_folder_is_told_until_the_study_has_its_checksum(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old = saved_config(Path("mine"), "ViTBackbone")
    new = saved_config(Path("mine"), "ViTBackbone", num_layers=2)
    assert folder_problems(sha256=old) == [
        f"backbones.x.sha256: checksum mismatch: the files of 'mine' have {new}, the study expects {old}. Give "
        f"`sha256: {new}` if these files are the right ones."
    ]
    assert folder_problems(sha256=new) == []


@pytest.mark.parametrize(("recorded", "is_enough"), [("1" * 64, True), ("2" * 64, False), (None, False)])
def test_a_converted_preset_needs_no_folder(tmp_path, monkeypatch, recorded, is_enough):
    monkeypatch.chdir(tmp_path)
    (WEIGHTS_FOLDER / "x").mkdir(parents=True)
    write_weights_record(WEIGHTS_FOLDER / "x", WeightsRecord("x-preset", preset={"sha256": recorded}))
    assert (folder_problems("nowhere", sha256="1" * 64) == []) == is_enough
    assert folder_problems("nowhere") != []


@pytest.mark.parametrize(
    ("architecture", "place"),
    [
        ("preset", f"hf://a/b@{COMMIT}"),
        ("dinov2_small", "preset"),
        ("preset", "kaggle://a/b/keras/c/1"),
        ("vgg16", "a.h5"),
    ],
)
def test_other_places_are_no_folders(architecture, place):
    assert folder_problems(place, architecture) == []


def test_the_check_reports_all_folders_at_once(tmp_path):
    study = copy.deepcopy(STUDY)
    for name in ("y", "x"):
        study["backbones"][name] = {"architecture": "preset", "weights": f"no-{name}"}
    study["folders"]["photos"] = {"source": "folder", "path": "no-photos", "image_size": 32}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    with pytest.raises(UserError) as error:
        check.main(argparse.Namespace(study=tmp_path / "study.yaml", clean=False))
    assert [sentence.split(":")[0] for sentence in error.value.sentences] == [
        "folders.photos.path",
        "backbones.y.weights",
        "backbones.x.weights",
    ]


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
