"""Backbones, cuts, freezing, and the real ImageNet weights."""

from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from stages.base.errors import UserError
from stages.data.weights import write_weights_record
from stages.networks.backbones import build_backbone
from stages.networks.cuts import above, below, dense_head, freeze_below, with_predictions
from stages.networks.layers import layer_table
from stages.networks.pretrained import load_backbone
from stages.study.architectures import ARCHITECTURES, layers_of

REAL_WEIGHTS = Path(__file__).parents[1].parent / "shared" / "weights"
RANDOM = np.random.default_rng(0)


def images(count: int, size: int) -> np.ndarray:
    return RANDOM.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_the_table_of_layers_is_that_of_the_real_networks():
    table = layer_table()
    for name in ARCHITECTURES:
        assert list(layers_of(name).items()) == list(table[name].items())  # as lists: the order counts


def test_layers_inside_a_residual_block_do_not_separate():
    layers = layers_of("mobilenet_v2")
    assert layers["block_2_add"].separates and layers["out_relu"].separates
    assert not layers["block_2_depthwise"].separates  # the shortcut passes beside it


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("four_conv", lambda x: x / 127.5 - 1),
        ("mobilenet_v2", lambda x: x / 127.5 - 1),
        # Means of the ImageNet training images, blue first: Simonyan & Zisserman 2015, as Caffe stored them.
        ("vgg16", lambda x: x[..., ::-1] - np.array([103.939, 116.779, 123.68])),
    ],
)
def test_preprocessing_is_that_of_the_architecture(architecture, expected):
    backbone = build_backbone(architecture, 32)
    pixels = images(2, 32)
    found = keras.Model(backbone.input, backbone.get_layer("preprocessing").output)(pixels)
    np.testing.assert_allclose(found, expected(pixels.astype(float)), atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "cut"),
    [("four_conv", "pool1"), ("four_conv", "fc1"), ("mobilenet_v2", "block_5_add"), ("vgg16", "block3_pool")],
)
def test_the_parts_below_and_above_a_cut_make_the_whole(architecture, cut):
    backbone = build_backbone(architecture, 32)
    pixels = images(3, 32)
    parts = above(backbone, cut)(below(backbone, cut)(pixels))
    np.testing.assert_allclose(parts, backbone(pixels), rtol=1e-4, atol=1e-5)


def test_pooling_is_for_layers_whose_activations_are_an_image():
    backbone = build_backbone("four_conv", 16)
    assert below(backbone, "conv4", "max").output.shape == (None, 64)
    assert [layer for layer, of in layers_of("four_conv").items() if not of.image] == ["flatten", "fc1", "dropout"]


def train_a_step(model: keras.Model, inputs: np.ndarray, classes: int) -> None:
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(inputs, np.arange(len(inputs)) % classes, epochs=1, verbose=0)


def test_frozen_layers_keep_their_weights_and_statistics_and_the_others_learn():
    backbone = build_backbone("mobilenet_v2", 32)
    freeze_below(backbone, "block_15_expand")
    before = {layer.name: [w.numpy().copy() for w in layer.weights] for layer in backbone.layers}
    train_a_step(with_predictions(backbone, 2, "network"), images(8, 32), 2)
    names = list(layers_of("mobilenet_v2"))
    boundary = names.index("block_15_expand")
    changed = {
        name
        for name in names
        if any(
            not np.array_equal(old, new.numpy())
            for old, new in zip(before[name], backbone.get_layer(name).weights, strict=True)
        )
    }
    assert not changed & set(names[:boundary])
    assert {"block_15_expand", "block_15_expand_BN", "Conv_1", "Conv_1_bn"} <= changed


def test_dropout_in_the_frozen_part_drops_nothing():
    inputs = keras.Input((50,))
    x = keras.layers.Identity()(inputs)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, name="top")(x))
    ones = np.ones((4, 50))
    assert not np.array_equal(np.asarray(model(ones, training=True)), np.asarray(model(ones)))
    freeze_below(model, "top")
    np.testing.assert_array_equal(np.asarray(model(ones, training=True)), np.asarray(model(ones)))


def test_a_dense_head_has_the_layers_of_its_entry():
    head = dense_head((4, 4, 8), [16, 8], 0.25, classes=3)
    assert [layer.name for layer in head.layers[1:]] == [
        "flatten",
        "dense1",
        "dropout1",
        "dense2",
        "dropout2",
        "predictions",
    ]
    np.testing.assert_allclose(np.sum(head(np.ones((2, 4, 4, 8))), axis=1), 1, rtol=1e-6)


def test_weights_of_another_architecture_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/weights/mine"
    folder.mkdir(parents=True)
    build_backbone("four_conv", 32).save_weights(folder / "backbone.weights.h5")
    write_weights_record(folder, "vgg16", "mine.weights.h5", file=folder / "backbone.weights.h5")
    sentence = r"^backbones\.mine\.weights: backbone\.weights\.h5 does not fit vgg16 \(.*\); give weights of it\.$"
    with pytest.raises(UserError, match=sentence) as error:
        load_backbone("mine", 32)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("architecture", "application"), [("vgg16", "VGG16"), ("mobilenet_v2", "MobileNetV2")])
def test_weights_in_the_older_format_of_the_published_files_are_loaded(
    architecture, application, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/weights/old"
    folder.mkdir(parents=True)
    published = getattr(keras.applications, application)(include_top=False, weights=None, input_shape=(64, 64, 3))
    with h5py.File(folder / "backbone.h5", "w") as file:
        save_weights_to_hdf5_group(file, published)
    write_weights_record(folder, architecture, "imagenet", file=folder / "backbone.h5")
    backbone, _ = load_backbone("old", 64)
    for old, new in zip(published.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_that_changed_on_disk_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/weights/mine"
    folder.mkdir(parents=True)
    file = folder / "backbone.weights.h5"
    build_backbone("four_conv", 32).save_weights(file)
    write_weights_record(folder, "four_conv", "mine.weights.h5", file=file)
    load_backbone("mine", 32)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="data/weights/mine is damaged"):
        load_backbone("mine", 32)


@pytest.mark.parametrize(("architecture", "application"), [("vgg16", "VGG16"), ("mobilenet_v2", "MobileNetV2")])
def test_the_published_imagenet_weights_give_the_published_activations(
    architecture, application, tmp_path, monkeypatch
):
    file = REAL_WEIGHTS / f"{architecture}_imagenet_notop.weights.h5"
    if not file.exists():
        pytest.skip(f"the ImageNet weights {file.name} are not here")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/weights/real"
    folder.mkdir(parents=True)
    (folder / "backbone.weights.h5").symlink_to(file)
    write_weights_record(folder, architecture, file.name, file=folder / "backbone.weights.h5")
    backbone, _ = load_backbone("real", 64)
    published = getattr(keras.applications, application)(include_top=False, weights=None, input_shape=(64, 64, 3))
    published.load_weights(file)
    pixels = images(2, 64)
    preprocess = getattr(keras.applications, architecture).preprocess_input
    expected = published(preprocess(pixels.astype(np.float32)))
    np.testing.assert_allclose(backbone(pixels), expected, rtol=1e-3, atol=1e-3)
