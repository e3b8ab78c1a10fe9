"""Models in the formats of transformers and timm: their weights, their scaling of pixels, and what is refused."""

import json
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stages import weights
from stages.artifacts.weights import WEIGHTS_FOLDER, read_weights_record
from stages.backbones.image_processors import timm_pixels, transformers_pixels
from stages.backbones.preset_formats import check_timm, transformers_config
from stages.backbones.pretrained import load_backbone
from stages.core.errors import UserError
from stages.core.params import Params
from stages.sources.preset_files import preset_checksum
from tests.transformers_models import CONFIGS, PROCESSOR, REGISTERS, SIZE, states, write_model

WHERE = "backbones.x.weights"
CANNOT = {name: f"{WHERE}: {name} cannot be used (" for name in ("config.json", "preprocessor_config.json")}


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path("mine")


def convert(**entry):
    entry = {"architecture": "preset", "weights": "mine", **entry}
    return weights.main(Params({"backbones": {"x": entry}}), "x")


def images():
    return np.random.default_rng(4).integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.uint8)


def assert_computes(kind, tolerance=1e-4):
    backbone, _ = load_backbone("x", SIZE)
    layers = [backbone.get_layer(name).output for name in ("block2", "normalization")]
    block, tokens = keras.Model(backbone.input, layers).predict_on_batch(images())
    expected = states(kind, images())
    for actual, values in ((block, expected[2]), (tokens, expected[-1])):
        np.testing.assert_allclose(actual, values, rtol=0, atol=tolerance * np.abs(values).max())


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("kind", "prefix", "class_name", "before_patches"),
    [
        ("vit", "", "ViTBackbone", 1),
        ("vit", "vit.", "ViTBackbone", 1),
        ("vit", "model.vit.", "ViTBackbone", 1),
        ("dinov2", "", "DINOV2Backbone", 1),
        ("dinov2", "dinov2.", "DINOV2Backbone", 1),
        ("dinov2_with_registers", "dinov2_with_registers.", "DINOV2Backbone", 1 + REGISTERS),
    ],
)
def test_a_model_of_transformers_computes_what_it_computes_there(mine, kind, prefix, class_name, before_patches):
    write_model(mine, kind, prefix)
    sha256 = preset_checksum(mine)
    assert convert(sha256=sha256) == f"x-preset, mine, sha256 {sha256}"
    preset = read_weights_record("x").preset
    assert preset["class_name"] == class_name
    assert (preset["image_size"], preset["class_token"], preset["prefix_tokens"]) == (SIZE, True, before_patches)
    np.testing.assert_allclose(preset["scale"], 1 / (255 * np.array(PROCESSOR["image_std"])))
    np.testing.assert_allclose(preset["offset"], -np.array(PROCESSOR["image_mean"]) / PROCESSOR["image_std"])
    assert_computes(kind)


def in_two_files(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({name: values for name, values in tensors.items() if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


def in_half_precision(folder, dtype=np.float16):
    tensors = load_file(folder / "model.safetensors")
    save_file({name: values.astype(dtype) for name, values in tensors.items()}, folder / "model.safetensors")


def in_bfloat16(folder):
    in_half_precision(folder, ml_dtypes.bfloat16)


def with_other_files(folder):
    (folder / "tf_model.h5").write_bytes(b"TensorFlow")
    (folder / "tokenizer.json").write_text("{}")


def sizes_as_lists(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"image_size": [SIZE, SIZE], "patch_size": [8, 8], "rope_parameters": None}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        (in_two_files, 1e-4),
        (in_half_precision, 5e-3),
        (in_bfloat16, 5e-2),
        (with_other_files, 1e-4),
        (sizes_as_lists, 1e-4),
    ],
)
@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_the_same_model_may_be_saved_otherwise(mine, kind, change, tolerance):
    write_model(mine, kind)
    change(mine)
    assert "tf_model.h5" not in convert()
    assert_computes(kind, tolerance)


def write_processor(folder, content):
    folder.mkdir()
    (folder / "preprocessor_config.json").write_text(content if isinstance(content, str) else json.dumps(content))


HALVES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


@pytest.mark.parametrize(
    ("processor", "scale", "offset", "size"),
    [
        ({**HALVES, "size": 224}, 2 / 255, -1, 224),
        ({**HALVES, "feature_extractor_type": "ViTFeatureExtractor", "size": [384, 384]}, 2 / 255, -1, 384),
        (
            {**HALVES, "image_processor_type": "ViTImageProcessorFast", "size": {"height": 96, "width": 96}},
            2 / 255,
            -1,
            96,
        ),
        ({**HALVES, "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, 2 / 255, -1, 224),
        ({**HALVES, "size": 256, "crop_size": 224, "do_center_crop": False}, 2 / 255, -1, 256),
        ({**HALVES, "image_processor_type": "BitImageProcessor", "crop_size": 224, "size": 256}, 2 / 255, -1, 224),
        ({**HALVES, "rescale_factor": 1 / 127.5, "do_rescale": True}, 2 / 127.5, -1, None),
        ({**HALVES, "do_rescale": False, "rescale_factor": 1 / 255}, 2, -1, None),
        ({"do_normalize": False, "do_convert_rgb": True}, 1 / 255, 0, None),
        ({"do_normalize": False, "do_rescale": False, "do_pad": None}, 1, 0, None),
        ({"image_mean": 0.25, "image_std": 0.5}, 2 / 255, -0.5, None),
    ],
)
def test_pixels_are_scaled_as_the_image_processor_says(mine, processor, scale, offset, size):
    write_processor(mine, processor)
    pixels = transformers_pixels(mine, WHERE)
    np.testing.assert_allclose(pixels["scale"], [scale] * 3)
    np.testing.assert_allclose(pixels["offset"], [offset] * 3)
    assert pixels["image_size"] == size


@pytest.mark.parametrize(
    ("processor", "problem"),
    [
        ("{", "it is not a JSON object"),
        ("[]", "it is not a JSON object"),
        ({}, "image_mean is missing; image_std is missing"),
        ({"image_std": [0.5, 0.5, 0.5]}, "image_mean is missing"),
        ({**HALVES, "image_mean": [0.5]}, "image_mean is [0.5], not a number for each color"),
        ({**HALVES, "image_mean": "imagenet"}, 'image_mean is "imagenet", not a number for each color'),
        (
            {**HALVES, "image_std": [0.5, 0, 0.5]},
            "image_std is [0.5, 0, 0.5], not a number other than 0 for each color",
        ),
        ({**HALVES, "rescale_factor": None}, "rescale_factor is missing"),
        ({**HALVES, "rescale_factor": 0}, "rescale_factor is 0, not a number other than 0 for each color"),
        (
            {**HALVES, "size": {"height": 224, "width": 192}},
            'size {"height": 224, "width": 192} is not the side of a square',
        ),
        ({**HALVES, "size": {"longest_edge": 224}}, 'size {"longest_edge": 224} is not the side of a square'),
        ({**HALVES, "crop_size": [224, 192], "size": 256}, "crop_size [224, 192] is not the side of a square"),
        (
            {**HALVES, "image_processor_type": "EfficientNetImageProcessor"},
            "'EfficientNetImageProcessor' is not a known image processor",
        ),
        ({**HALVES, "image_processor_type": 3, "size": 0}, "3 is not a known image processor; size 0 is not the side"),
        ({**HALVES, "do_flip_channel_order": True}, "do_flip_channel_order cannot be done here"),
    ],
)
def test_image_processors_that_cannot_be_followed_are_refused(mine, processor, problem):
    write_processor(mine, processor)
    with pytest.raises(UserError) as error:
        transformers_pixels(mine, WHERE)
    assert str(error.value).startswith(CANNOT["preprocessor_config.json"] + problem)
    assert str(error.value).endswith("). Correct the file, or give another preset.")


TIMM = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.25, 0.2], "input_size": [3, 224, 224]}


def test_pixels_are_scaled_as_timm_says():
    pixels = timm_pixels({"pretrained_cfg": TIMM}, WHERE)
    np.testing.assert_allclose(pixels["scale"], [2 / 255, 4 / 255, 5 / 255])
    np.testing.assert_allclose(pixels["offset"], [-1, -1.6, -1.5])
    assert pixels["image_size"] == 224


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({}, "it has no pretrained_cfg, which says how pixels are scaled"),
        ({"pretrained_cfg": []}, "it has no pretrained_cfg"),
        ({"pretrained_cfg": {**TIMM, "mean": None}}, "pretrained_cfg.mean is missing"),
        (
            {"pretrained_cfg": {**TIMM, "std": [1, 1]}},
            "pretrained_cfg.std is [1, 1], not a number other than 0 for each",
        ),
        (
            {"pretrained_cfg": {**TIMM, "input_size": [1, 28, 28]}},
            "pretrained_cfg.input_size [1, 28, 28] is not that of",
        ),
        ({"pretrained_cfg": {**TIMM, "input_size": [3, 224, 192]}}, "pretrained_cfg.input_size [3, 224, 192] is not"),
        (
            {"pretrained_cfg": {"mean": 0, "std": 1}},
            "pretrained_cfg.input_size null is not that of square color images",
        ),
    ],
)
def test_pixels_of_timm_that_cannot_be_followed_are_refused(config, problem):
    with pytest.raises(UserError) as error:
        timm_pixels(config, WHERE)
    assert str(error.value).startswith(CANNOT["config.json"] + problem)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "clip"},
            "config.json has model_type 'clip', which cannot be converted here. Give a preset that",
        ),
        (
            {"model_type": "bert"},
            "config.json has model_type 'bert', which cannot be converted here. Give a preset that",
        ),
        ({"model_type": "dinov3_convnext"}, "config.json has model_type 'dinov3_convnext', which cannot be"),
        ({"model_type": ["vit"]}, "config.json has model_type \"['vit']\", which cannot be converted here"),
        (
            {"model_type": "vit", "hidden_act": "relu"},
            'config.json cannot be used (hidden_act is "relu", and KerasHub ',
        ),
        (
            {"model_type": "deit", "qkv_bias": False},
            "config.json cannot be used (qkv_bias is false, and KerasHub computes",
        ),
        ({"model_type": "dinov2", "layer_norm_eps": 1e-5}, "config.json cannot be used (layer_norm_eps is 1e-05, and"),
        (
            {"model_type": "swin", "use_absolute_embeddings": True},
            "config.json cannot be used (use_absolute_embeddings is",
        ),
        (
            {"model_type": "dinov3_vit", "num_channels": 4},
            "config.json cannot be used (num_channels is 4, and images have 3)",
        ),
        (
            {"model_type": "vit", "image_size": [32, 64], "patch_size": {"height": 8, "width": 4}},
            "config.json cannot be used (image_size [32, 64] is not the side of a square; patch_size ",
        ),
        (
            {"model_type": "vit"},
            "the preset has no model.safetensors, and weights of other formats, such as pytorch_model",
        ),
    ],
)
def test_models_of_transformers_that_kerashub_would_convert_to_others_are_refused(mine, config, message):
    mine.mkdir()
    with pytest.raises(UserError) as error:
        transformers_config(mine, config, WHERE)
    assert str(error.value).startswith(f"{WHERE}: {message}")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"architecture": "vit_base_patch16_224"},
            "config.json has architecture 'vit_base_patch16_224', which cannot be",
        ),
        (
            {"architecture": "vgg16"},
            "config.json has architecture 'vgg16', which cannot be converted here. Give a preset ",
        ),
        (
            {"architecture": "resnet50", "model_args": {"in_chans": 1, "num_classes": 10, "global_pool": "avg"}},
            'config.json cannot be used (KerasHub ignores model_args {"in_chans": 1}). Give another preset.',
        ),
        (
            {"architecture": "resnet50", "model_args": {"in_chans": 3}},
            "the preset has no model.safetensors, and weights",
        ),
    ],
)
def test_models_of_timm_that_kerashub_would_convert_to_others_are_refused(mine, config, message):
    mine.mkdir()
    with pytest.raises(UserError) as error:
        check_timm(mine, config, WHERE)
    assert str(error.value).startswith(f"{WHERE}: {message}")


def without_processor(folder):
    (folder / "preprocessor_config.json").unlink()


def without_a_weight(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: values for name, values in tensors.items() if "layernorm_after" not in name},
        folder / "model.safetensors",
    )


def truncated(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def of_another_shape(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "vit", **CONFIGS["vit"], "hidden_size": 32}))


def of_timm(folder):
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet50", "pretrained_cfg": TIMM}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without_processor,
            "the preset does not say how pixels are scaled, because it has no preprocessor_config.json. Save ",
        ),
        (
            without_a_weight,
            "KerasHub cannot read the preset (File does not contain tensor vit.encoder.layer.0.layernorm_after",
        ),
        (truncated, "KerasHub cannot read the preset ("),
        (of_another_shape, "KerasHub cannot read the preset ("),
        (
            of_timm,
            "KerasHub cannot read the preset (File does not contain tensor ",
        ),
    ],
)
def test_incomplete_models_are_refused_and_leave_nothing(mine, change, message):
    write_model(mine, "vit")
    change(mine)
    with pytest.raises(UserError) as error:
        convert()
    assert str(error.value).startswith(f"{WHERE}: {message}")
    assert "\n" not in str(error.value)
    assert not WEIGHTS_FOLDER.exists() or not list(WEIGHTS_FOLDER.rglob("*"))
