"""Presets of KerasHub as backbones: the published network layer by layer, its cuts, poolings and sizes."""

import json
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest

from stages.artifacts.weights import WEIGHTS_FOLDER, WeightsRecord, write_weights_record
from stages.backbones import preset_conversion
from stages.backbones.building import build_backbone, inner_layers
from stages.backbones.cuts import above_cut, freeze_below, up_to_cut
from stages.backbones.inference import onnx_inference
from stages.backbones.known_presets import FAMILIES, PRESETS_FILE, known_presets, transformer_layers
from stages.backbones.layer_table import layers_of
from stages.backbones.multiply_adds import multiply_adds
from stages.backbones.pooling import possible_poolings
from stages.backbones.preset_conversion import convert_preset
from stages.backbones.preset_models import build_preset
from stages.backbones.presets import CLASS_TOKENS, CONVOLUTIONAL, TRANSFORMERS, image_size_problem
from stages.backbones.pretrained import bicubic_matrix, load_backbone, load_weights, save_weights
from stages.core.errors import UserError
from tests import presets
from tests.presets import BLOCKS, OFFSET, PATCH, SCALE, SIZE, save_preset

FAMILY_NAMES = [*presets.TRANSFORMERS, *presets.CONVOLUTIONAL]
WITH_CLASS_TOKEN = {"vit", "deit", "dinov2", "dinov2_with_registers", "dinov3", "clip"}
PREFIX = {"vit": 1, "deit": 2, "dinov2": 1, "dinov2_with_registers": 3, "dinov3": 3, "clip": 1}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with data/weights/<family>, and the published backbones by family."""
    root, published = tmp_path_factory.mktemp("presets"), {}
    for family in FAMILY_NAMES:
        backbone = save_preset(family, root / family)
        folder = root / WEIGHTS_FOLDER / family
        folder.mkdir(parents=True)
        preset, _ = convert_preset(root / family, folder / "backbone.weights.h5", family, "backbones.x.weights")
        write_weights_record(folder, WeightsRecord(family, preset=preset), folder / "backbone.weights.h5")
        published[family] = backbone
    return root, published


@pytest.fixture
def load(saved, monkeypatch):
    """The backbone of a family, and its record."""
    monkeypatch.chdir(saved[0])
    return lambda family, size=SIZE: load_backbone(family, size)


def pixels_of(size=SIZE, images=3):
    return np.random.default_rng(2).integers(0, 256, (images, size, size, 3)).astype(np.uint8)


def published_output(backbone, pixels):
    scaled = pixels.astype(np.float32) * np.float32(SCALE) + np.float32(OFFSET)
    return backbone.predict_on_batch(scaled)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_backbone_computes_exactly_what_its_preset_computes(saved, load, family):
    backbone, _ = load(family)
    assert np.array_equal(backbone.predict_on_batch(pixels_of()), published_output(saved[1][family], pixels_of()))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_layer_has_the_shape_that_its_record_says(load, family):
    backbone, record = load(family)
    layers = layers_of(record.architecture, record.preset)
    outputs = keras.Model(backbone.input, [backbone.get_layer(name).output for name in layers])
    for (name, traits), output in zip(layers.items(), outputs.predict_on_batch(pixels_of()), strict=True):
        assert {4: "image", 3: "tokens", 2: "vector"}[output.ndim] == traits.shape, name
        assert output.shape[1:] == backbone.get_layer(name).output.shape[1:], name


@pytest.mark.parametrize("family", presets.TRANSFORMERS)
def test_the_layers_of_a_transformer_are_known_before_it_is_fetched(load, family):
    _, record = load(family)
    blocks = (2, 2) if family == "swin" else (BLOCKS,)
    expected = transformer_layers(record.preset["class_name"], blocks)
    assert list(layers_of(family, record.preset).items()) == list(expected.items())


@pytest.mark.parametrize("family", presets.TRANSFORMERS)
def test_a_transformer_is_cut_and_run_on_at_each_block(load, family):
    backbone, record = load(family)
    whole = backbone.predict_on_batch(pixels_of())
    separating = [name for name, traits in layers_of(family, record.preset).items() if traits.separates]
    assert len(separating) > BLOCKS or family == "dinov3"
    for cut in separating[:-1]:
        below = up_to_cut(backbone, cut).predict_on_batch(pixels_of())
        assert np.array_equal(above_cut(backbone, cut).predict_on_batch(below), whole), cut


@pytest.mark.parametrize("family", presets.TRANSFORMERS)
def test_tokens_are_pooled_by_class_token_patches_or_both(load, family):
    backbone, record = load(family)
    traits, has_class_token = layers_of(family, record.preset)["normalization"], family in WITH_CLASS_TOKEN
    assert record.preset["class_token"] == has_class_token
    prefix = record.preset["prefix_tokens"]
    assert prefix == PREFIX.get(family, 0)
    tokens = up_to_cut(backbone, "normalization").predict_on_batch(pixels_of())
    expected = {"none": tokens, "average": tokens[:, prefix:].mean(axis=1), "max": tokens[:, prefix:].max(axis=1)}
    if has_class_token:
        both = np.concatenate([tokens[:, 0], expected["average"]], axis=1)
        expected |= {"class_token": tokens[:, 0], "class_token_and_average": both}
    assert possible_poolings(traits, has_class_token) == list(expected)
    for pooling, values in expected.items():
        pooled = up_to_cut(backbone, "normalization", pooling, prefix).predict_on_batch(pixels_of())
        np.testing.assert_allclose(pooled, values, atol=1e-6)


@pytest.mark.parametrize("family", presets.TRANSFORMERS)
def test_unfreezing_the_last_blocks_freezes_everything_below_and_its_dropout(load, family):
    backbone, record = load(family)
    lowest = list(layers_of(family, record.preset))[-3]
    freeze_below(backbone, lowest)
    names = [layer.name for layer in backbone.layers]
    for number, layer in enumerate(backbone.layers):
        assert bool(layer.trainable_weights) == (number >= names.index(lowest) and bool(layer.weights)), layer.name
    frozen = [part for layer in backbone.layers[: names.index(lowest)] for part in inner_layers(layer)]
    rates = [
        getattr(part, rate)
        for part in frozen
        for rate in ("rate", "drop_path_rate", "drop_prob")
        if hasattr(part, rate)
    ]
    assert not any(rates)


@pytest.mark.numeric
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_onnx_runtime_agrees_at_a_lower_cut(load, family):
    backbone, record = load(family)
    names = list(layers_of(family, record.preset))
    model = keras.Model(
        backbone.input, [backbone.get_layer(name).output for name in (names[len(names) // 2], names[-1])]
    )
    for actual, expected in zip(onnx_inference(model)(pixels_of()), model.predict_on_batch(pixels_of()), strict=True):
        # Other kernels round in another order; a wrong conversion is off by the size of the activations.
        np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.numeric
@pytest.mark.parametrize("family", ["vit", "vit_without_class_token", "deit", "clip", "siglip"])
def test_position_embeddings_are_interpolated_for_other_sizes(load, family):
    small, record = load(family)
    large, _ = load(family, 64)
    prefix = record.preset["prefix_tokens"]
    tables = [
        next(weight.numpy() for weight in model.get_layer("embedding").weights if "position_emb" in weight.path)
        for model in (small, large)
    ]
    old, new = (table.reshape(-1, 16) for table in tables)
    assert np.array_equal(old[:prefix], new[:prefix])
    side = SIZE // PATCH
    expected = keras.ops.image.resize(old[prefix:].reshape(side, side, 16), (8, 8), "bicubic", antialias=False)
    np.testing.assert_allclose(new[prefix:], np.reshape(expected, (64, 16)), atol=1e-6)
    assert large.predict_on_batch(pixels_of(64)).shape[0] == 3


@pytest.mark.parametrize(
    ("new_side", "expected"),  # torch.nn.functional.interpolate(..., mode="bicubic") of 0, 0, 1, 0
    [
        (6, [0.0, -0.09375, 0.1608796, 0.9432871, 0.59375, -0.0868053]),
        (3, [-0.0173612, 0.59375, 0.1608795]),
        (4, [0.0, 0.0, 1.0, 0.0]),
    ],
)
def test_rows_are_interpolated_as_by_pytorch(new_side, expected):
    np.testing.assert_allclose(bicubic_matrix(4, new_side) @ [0, 0, 1, 0], expected, atol=1e-6)


@pytest.mark.numeric
@pytest.mark.parametrize("family", ["dinov2", "dinov2_with_registers"])
@pytest.mark.parametrize(("size", "side"), [(64, 8), (24, 3), (48, 6)])
def test_dinov2_interpolates_its_trained_positions_once(load, tmp_path, family, size, side):
    small, record = load(family)
    trained = small.get_layer("embedding").position_embeddings.numpy()[0]  # for 48 pixels, in a preset for 32
    matrix = bicubic_matrix(6, side)
    expected = np.einsum("ai,bj,ijc->abc", matrix, matrix, trained[1:].reshape(6, 6, 16)).reshape(-1, 16)
    model, _ = load(family, size)
    positions = model.get_layer("embedding").interpolated_position_embeddings.numpy()[0]
    assert np.array_equal(positions[0], trained[0])
    np.testing.assert_allclose(positions[1:], expected, atol=1e-6)
    save_weights(model, tmp_path / "saved.weights.h5")
    rebuilt = build_backbone(family, size, record.preset)
    load_weights(rebuilt, tmp_path / "saved.weights.h5", "saved")
    assert np.array_equal(rebuilt.predict_on_batch(pixels_of(size)), model.predict_on_batch(pixels_of(size)))


@pytest.mark.parametrize("family", ["dinov3", "swin", "resnet"])
def test_other_sizes_give_what_kerashub_gives_for_them(saved, load, family):
    backbone, _ = load(family, 64)
    published = keras_hub.models.Backbone.from_preset(str(saved[0] / family), image_shape=(64, 64, 3))
    assert np.array_equal(backbone.predict_on_batch(pixels_of(64)), published_output(published, pixels_of(64)))


@pytest.mark.parametrize(
    ("family", "size", "reason"),
    [
        (
            "vit",
            36,
            "its patches have 8 pixels a side. Give the dataset as image_size a multiple of 8; it was trained on",
        ),
        ("dinov2", 30, "its patches have 8 pixels a side. Give the dataset as image_size a multiple of 8; it was"),
        ("swin", 14, "its windows need images of at least 16 pixels. Increase image_size of the dataset."),
    ],
)
def test_sizes_that_a_transformer_cannot_take_are_refused(load, family, size, reason):
    with pytest.raises(UserError) as error:
        load(family, size)
    assert str(error.value).startswith(
        f"backbones.{family}: {family} does not take images of {size} pixels, because {reason}"
    )


@pytest.mark.parametrize(
    ("published", "size", "sizes"),
    [
        (384, 224, None),  # 16 patches
        (384, 384, None),  # as published, with 6 pixels that no patch covers
        (384, 256, "384, on which it was trained, or a multiple of 14."),
        (518, 384, "a multiple of 14; it was trained on 518."),
    ],
)
def test_the_published_size_is_possible_also_if_it_is_no_multiple_of_the_patch(published, size, sizes):
    preset = {"class_name": "SigLIPVisionEncoder", "config": {"patch_size": 14}, "image_size": published}
    problem = image_size_problem(preset, size)
    assert problem == (sizes and f"its patches have 14 pixels a side. Give the dataset as image_size {sizes}")


def test_a_vision_transformer_has_the_published_multiply_adds():
    # Dosovitskiy et al. 2021 do not give them; 17.6 billion is the number in the code of DeiT and of timm.
    config = {"image_shape": (224, 224, 3), "patch_size": 16, "num_layers": 1, "num_heads": 12, "hidden_dim": 768}
    preset = {"class_name": "ViTBackbone", "config": {**config, "mlp_dim": 3072}, "scale": 1.0, "offset": 0.0}
    backbone = build_preset(preset, 224, "vit")
    embedding = multiply_adds(up_to_cut(backbone, "embedding"))
    block = multiply_adds(up_to_cut(backbone, "block1")) - embedding
    assert embedding + 12 * block == pytest.approx(17.56e9, rel=1e-3)


def test_the_table_of_presets_is_that_of_kerashub():
    known = known_presets()
    assert PRESETS_FILE.exists()
    classes = {preset.class_name for preset in known.values()}
    assert classes == TRANSFORMERS | CONVOLUTIONAL == set(FAMILIES)
    assert len({preset.handle for preset in known.values()}) == len(known)
    for name, preset in known.items():
        assert hasattr(keras_hub.models, preset.class_name)
        assert bool(preset.blocks) == (preset.class_name in TRANSFORMERS), name
        assert preset.image_size >= preset.smallest_image, name
    for name in ("dinov2_small", "vit_base_patch16_224_imagenet", "clip_vit_base_patch32", "siglip_base_patch16_224"):
        assert known[name].blocks == (12,), name
    assert known["swin_tiny_patch4_window7_224"].blocks == (2, 2, 6, 2)
    assert set(CLASS_TOKENS) < TRANSFORMERS


def text_preset(folder):
    keras_hub.models.BertBackbone(20, 1, 2, 16, 32).save_to_preset(str(folder))


def preset_without_converter(folder):
    save_preset("vit", folder)
    (folder / "image_converter.json").unlink()


def damaged_preset(folder):
    save_preset("vit", folder)
    weights = folder / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:-100])


def oblong_preset(folder):
    keras_hub.models.ViTBackbone(**presets.TOKENS, image_shape=(32, 64, 3), patch_size=8, mlp_dim=32).save_to_preset(
        str(folder)
    )


def unknown_format(folder):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"layers": 3}))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            text_preset,
            r"the preset has a BertBackbone, which cannot be a backbone here\. Possible: ViT, DeiT, .*MobileNet\.",
        ),
        (
            preset_without_converter,
            r"the preset does not say how pixels are scaled \(.*\)\. Save its image converter too",
        ),
        (damaged_preset, r"KerasHub cannot read the preset \(.*\)\. Give a preset of an image backbone\."),
        (
            oblong_preset,
            r"the preset is for images of 32 x 64 pixels with 3 channels\. Give one for square color images\.",
        ),
        (unknown_format, r"KerasHub cannot read the preset \(Unrecognized format .*\)\. Give a preset of an image"),
    ],
)
def test_folders_without_a_usable_preset_are_refused(tmp_path, write, message):
    write(tmp_path / "mine")
    with pytest.raises(UserError, match=rf"^backbones\.x\.weights: {message}") as error:
        convert_preset(tmp_path / "mine", tmp_path / "backbone.weights.h5", "mine", "backbones.x.weights")
    assert "\n" not in str(error.value)


def fails(*_):
    raise ValueError("Inputs have incompatible shapes.")


def of_other_numbers(name, image_size, preset):
    return build_preset({**preset, "offset": [1.0, 1.0, 1.0]}, image_size, name)


def of_another_width(name, image_size, preset):
    return build_preset({**preset, "config": {**preset["config"], "mlp_dim": 8}}, image_size, name)


@pytest.mark.parametrize("build", [fails, of_other_numbers, of_another_width])
def test_a_preset_whose_description_leads_to_another_network_is_refused(tmp_path, monkeypatch, build):
    save_preset("vit", tmp_path / "mine")
    monkeypatch.setattr(preset_conversion, "build_backbone", build)
    with pytest.raises(UserError) as error:
        convert_preset(tmp_path / "mine", tmp_path / "backbone.weights.h5", "mine", "backbones.x.weights")
    assert str(error.value) == (
        "backbones.x.weights: the network built from its description computes other values. Give another preset."
    )


def test_the_record_of_a_backbone_is_plain_json(saved):
    for family in FAMILY_NAMES:
        text = (saved[0] / WEIGHTS_FOLDER / family / "backbone.json").read_text()
        record = WeightsRecord(**json.loads(text))
        assert record.trained_size == SIZE
        assert Path(record.file).suffix == ".h5"
        assert record.preset["scale"] == SCALE and record.preset["offset"] == OFFSET
