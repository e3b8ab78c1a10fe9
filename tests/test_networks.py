"""Backbones, cuts, freezing, and the real ImageNet weights."""

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from docs.published_sizes import SIZES
from stages.artifacts.weights import WeightsRecord, write_weights_record
from stages.backbones import write_layer_table
from stages.backbones.building import build_backbone
from stages.backbones.cuts import above_cut, freeze_below, pool_output, up_to_cut
from stages.backbones.layer_description import describe_layers
from stages.backbones.layer_names import find_layer, selectable_layers, starting_cut
from stages.backbones.layer_table import LAYERS_FILE, layers_of
from stages.backbones.pretrained import load_backbone, load_weights, save_weights
from stages.backbones.published_weights import PUBLISHED_WEIGHTS
from stages.backbones.registry import ARCHITECTURES
from stages.backbones.runtime import computing_in
from stages.config.heads import HeadConfig
from stages.config.networks import LayersConfig
from stages.core.errors import UserError
from stages.probes import standardization
from stages.probes.standardization import channel_statistics
from stages.training.heads import add_head, build_head, set_statistics
from tests.example_results import features_record

REAL_WEIGHTS = Path(__file__).parents[1].parent / "shared" / "weights"
RANDOM = np.random.default_rng(0)


def images(count: int, size: int) -> np.ndarray:
    return RANDOM.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


# One of each family; building all of them takes minutes.
FAMILIES = [
    *("four_conv", "simple_cnn", "vgg16", "vgg19", "resnet50_v2", "inception_v3", "densenet121", "mobilenet"),
    *("mobilenet_050", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "efficientnet_v2_b0", "convnext_tiny"),
]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tables_of_layers_and_sizes_match_the_networks(name):
    backbone = build_backbone(name, max(64, ARCHITECTURES[name].smallest_image))
    # Lists, because the order matters. Later networks of a process test the numbering of names too.
    assert list(layers_of(name).items()) == list(describe_layers(backbone).items())
    assert backbone.count_params() == SIZES[name][0]


def test_the_layers_of_one_architecture_are_updated_without_building_the_others(tmp_path, monkeypatch):
    table = tmp_path / "layers.json"
    before = json.loads(LAYERS_FILE.read_text(encoding="utf-8"))
    table.write_text(json.dumps({**before, "four_conv": ["gone"]}))
    monkeypatch.setattr(write_layer_table, "LAYERS_FILE", table)
    assert write_layer_table.main(["four_conv"]) == f"layers.json: {len(ARCHITECTURES)} architectures"
    assert table.read_bytes() == LAYERS_FILE.read_bytes()
    with pytest.raises(
        SystemExit,
        match=r"^write_layer_table: architecture 'four_con' does not exist \(did you mean 'four_conv'\?\)\.$",
    ):
        write_layer_table.main(["four_con"])


@pytest.mark.parametrize("name", FAMILIES)
def test_an_architecture_accepts_its_smallest_images(name):
    smallest = ARCHITECTURES[name].smallest_image
    assert np.isfinite(build_backbone(name, smallest)(images(1, smallest))).all()


@pytest.mark.parametrize("name", [name for name in FAMILIES if ARCHITECTURES[name].application])
def test_the_urls_of_imagenet_weights_are_those_of_keras(name, monkeypatch):
    class Fetched(Exception):
        pass

    def get_file(file, origin, *, file_hash=None, **_):
        raise Fetched(origin, file_hash)

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    entry = ARCHITECTURES[name]
    options = {"alpha": entry.alpha} if entry.alpha else {}
    application = getattr(keras.applications, entry.application)
    with pytest.raises(Fetched) as fetched:
        application(include_top=False, weights="imagenet", input_shape=(224, 224, 3), **options)
    origin, digits = fetched.value.args
    published = PUBLISHED_WEIGHTS[name]
    assert (origin, digits) == (published.url, published.checksum and published.checksum.split(":")[1])


@pytest.mark.numeric
def test_a_second_backbone_of_a_process_has_the_layer_names_of_the_first_and_loads_its_weights(tmp_path):
    first, second = build_backbone("inception_v3", 75), build_backbone("inception_v3", 75)
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    save_weights(first, tmp_path / "first.weights.h5")
    load_weights(second, tmp_path / "first.weights.h5", "test")
    pixels = images(2, 75)
    np.testing.assert_allclose(first(pixels), second(pixels), rtol=1e-5, atol=1e-6)


@pytest.mark.numeric
def test_efficientnet_is_rescaled_as_keras_does_it_with_imagenet_weights(monkeypatch):
    # With ImageNet weights Keras builds another network than without.
    built = []
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: "none.h5")
    monkeypatch.setattr(keras.Model, "load_weights", lambda self, _: built.append(self))
    keras.applications.EfficientNetB0(include_top=False, weights="imagenet", input_shape=(64, 64, 3))
    published, backbone = built[0], build_backbone("efficientnet_b0", 64)
    weights = [RANDOM.uniform(0.1, 0.3, weight.shape) for weight in published.weights]
    for model in (published, backbone):
        model.set_weights(weights)
    pixels = images(2, 64)
    stem = [model.get_layer("stem_conv_pad").input for model in (published, backbone)]
    expected = keras.Model(published.input, stem[0])(pixels.astype(np.float32))
    np.testing.assert_allclose(keras.Model(backbone.input, stem[1])(pixels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "name", "end", "layer"),
    [
        ("vgg16", "pool4", "highest", "block4_pool"),
        ("vgg16", "conv4_2", "highest", "block4_conv2"),
        ("vgg16", "block4", "highest", "block4_pool"),
        ("vgg16", "block4", "lowest", "block4_conv1"),
        ("vgg16", "top", "highest", "block5_pool"),
        ("vgg16", "fc1", "highest", None),
        ("mobilenet_v2", "block_1", "highest", "block_1_project_BN"),
        ("mobilenet_v2", "top", "lowest", "out_relu"),
        ("resnet50_v2", "conv5_block1", "highest", "conv5_block1_out"),
        ("four_conv", "fc1", "highest", "fc1"),
        ("four_conv", "pool3", "highest", None),
    ],
)
def test_a_layer_has_short_names(architecture, name, end, layer):
    assert find_layer(layers_of(architecture), name, end) == layer


def test_every_suggested_name_is_a_layer():
    for architecture in ARCHITECTURES:
        for name in selectable_layers(layers_of(architecture)):
            assert find_layer(layers_of(architecture), name, "highest"), (architecture, name)


@pytest.mark.parametrize(
    ("cuts", "pooling", "lowest", "expected"),
    [
        (["block_5_add", "out_relu", "block_2_add"], "none", "block_14_expand", "block_5_add"),
        (["block_5_add"], "average", "block_14_expand", None),  # pooled activations are not those of the cut
        (["block_5_add"], "none", "block_5_project", None),  # the cut lies among the trained layers
        (["block_2_depthwise"], "none", "block_14_expand", None),  # the shortcut bypasses the cut
    ],
)
def test_a_fine_tune_starts_from_the_highest_usable_cut(cuts, pooling, lowest, expected):
    assert starting_cut(layers_of("mobilenet_v2"), cuts, pooling, lowest) == expected


def test_layers_inside_a_residual_block_do_not_separate():
    layers = layers_of("mobilenet_v2")
    assert layers["block_2_add"].separates and layers["out_relu"].separates
    assert not layers["block_2_depthwise"].separates  # the shortcut bypasses it


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("four_conv", lambda x: x / 127.5 - 1),
        ("simple_cnn", lambda x: x / 127.5 - 1),
        ("mobilenet_v2", lambda x: x / 127.5 - 1),
        ("mobilenet_050", lambda x: x / 127.5 - 1),
        ("resnet50_v2", lambda x: x / 127.5 - 1),
        # Mean and standard deviation of ImageNet, of values from 0 to 1.
        ("densenet121", lambda x: (x / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])),
        # These networks scale their inputs themselves.
        ("mobilenet_v3_small", lambda x: x),
        ("efficientnet_b0", lambda x: x),
        ("convnext_tiny", lambda x: x),
        # Means of the ImageNet training images, blue first: Simonyan & Zisserman 2015, as Caffe stored them.
        ("vgg16", lambda x: x[..., ::-1] - np.array([103.939, 116.779, 123.68])),
    ],
)
def test_preprocessing_is_that_of_the_publication(architecture, expected):
    backbone = build_backbone(architecture, 32)
    pixels = images(2, 32)
    scaled = keras.Model(backbone.input, backbone.get_layer("preprocessing").output)(pixels)
    np.testing.assert_allclose(scaled, expected(pixels.astype(float)), atol=1e-4)


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("architecture", "cut"),
    [
        ("four_conv", "pool1"),
        ("four_conv", "fc1"),
        ("mobilenet_v2", "block_5_add"),
        ("vgg16", "block3_pool"),
        ("resnet50_v2", "conv3_block2_out"),
        ("efficientnet_b0", "block3b_add"),
        ("densenet121", "pool3_pool"),
    ],
)
def test_the_parts_below_and_above_a_cut_compute_the_whole_backbone(architecture, cut):
    backbone = build_backbone(architecture, 32)
    pixels = images(3, 32)
    parts = above_cut(backbone, cut)(up_to_cut(backbone, cut)(pixels))
    np.testing.assert_allclose(parts, backbone(pixels), rtol=1e-4, atol=1e-5)


def test_only_activations_with_image_axes_can_be_pooled():
    backbone = build_backbone("four_conv", 16)
    assert up_to_cut(backbone, "conv4", "max").output.shape == (None, 64)
    assert [layer for layer, traits in layers_of("four_conv").items() if traits.shape == "vector"] == [
        "flatten",
        "fc1",
        "dropout",
    ]


def train_a_step(model: keras.Model, inputs: np.ndarray, classes: int) -> None:
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(inputs, np.arange(len(inputs)) % classes, epochs=1, verbose=0)


@pytest.mark.numeric
def test_training_changes_the_weights_and_statistics_of_unfrozen_layers_only():
    backbone = build_backbone("mobilenet_v2", 32)
    freeze_below(backbone, "block_15_expand")
    before = {layer.name: [w.numpy().copy() for w in layer.weights] for layer in backbone.layers}
    network = add_head(pool_output(backbone, "average"), LayersConfig(), 2, 0.0, "network")
    train_a_step(network, images(8, 32), 2)
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


@pytest.mark.numeric
def test_dropout_below_the_lowest_trained_layer_drops_nothing():
    inputs = keras.Input((50,))
    x = keras.layers.Identity()(inputs)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, name="top")(x))
    ones = np.ones((4, 50))
    assert not np.allclose(model(ones, training=True), model(ones))
    freeze_below(model, "top")
    np.testing.assert_allclose(model(ones, training=True), model(ones), rtol=1e-6)


@pytest.mark.numeric
@pytest.mark.parametrize("architecture", ["convnext_tiny", "efficientnet_b0"])
def test_stochastic_depth_of_a_frozen_backbone_drops_nothing(architecture):
    backbone, pixels = build_backbone(architecture, 32), images(2, 32)
    freeze_below(backbone, None)
    outputs = [np.asarray(backbone(pixels, training=training)) for training in (True, False)]
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)


def head(**keys) -> HeadConfig:
    return HeadConfig(task="t", features="f", **keys)


@pytest.mark.numeric
def test_a_head_has_the_layers_of_its_entry():
    entry = head(hidden=[16, 8], dropout=0.25, batch_normalization=True, activation="tanh")
    built = build_head(entry, features_record(shape=[4, 4, 8], cut="conv4"), 3, l2=0.01)
    block = ["dense", "normalization", "activation", "dropout"]
    assert [layer.name for layer in built.layers[1:]] == [
        *("standardize", "features_flat"),
        *(f"{kind}{number}" for number in (1, 2) for kind in block),
        "predictions",
    ]
    assert built.get_layer("activation1").activation is keras.activations.tanh
    np.testing.assert_allclose(np.sum(built(np.ones((2, 4, 4, 8))), axis=1), 1, rtol=1e-6)
    assert not np.any(built.get_layer("predictions").kernel)
    built.get_layer("predictions").kernel.assign(RANDOM.normal(size=(8, 3)))
    kernels = [built.get_layer(name).kernel for name in ("dense1", "dense2", "predictions")]
    penalty = sum(0.01 * np.square(kernel).sum() for kernel in map(np.asarray, kernels))
    assert float(sum(built.losses)) == pytest.approx(penalty, rel=1e-5)


def test_dropout_without_hidden_layers_applies_to_the_inputs_of_the_output_layer():
    built = build_head(head(dropout=0.5, standardize=False), features_record(shape=[50], cut="fc1"), 2)
    built.get_layer("predictions").set_weights([RANDOM.normal(size=(50, 2)), np.zeros(2)])
    ones = np.ones((4, 50), np.float32)
    assert not np.allclose(built(ones, training=True), built(ones))


@pytest.mark.numeric
def test_features_are_standardized_by_channel(monkeypatch):
    monkeypatch.setattr(standardization, "BLOCK", 7)
    array = (RANDOM.normal(size=(200, 2, 2, 3)) * [1, 1000, 0] + [5, -3000, 7]).astype(np.float16)
    rows = np.arange(0, 200, 2)
    mean, variance = channel_statistics(array, rows)
    values = array[rows].astype(np.float64)
    np.testing.assert_allclose(mean, values.mean(axis=(0, 1, 2)), rtol=1e-6)
    expected = values.var(axis=(0, 1, 2))
    np.testing.assert_allclose(variance[1], expected[1], rtol=1e-6)
    assert variance[0] == variance[2] == pytest.approx(0.01 * expected.mean(), rel=1e-6)  # raised from 1 and 0
    built = build_head(head(), features_record(shape=[2, 2, 3], cut="conv4"), 2)
    set_statistics(built, mean, variance)
    scaled = keras.Model(built.input, built.get_layer("standardize").output)(values.astype(np.float32))
    np.testing.assert_allclose(scaled, (values - mean) / np.sqrt(variance), rtol=1e-3, atol=1e-3)


@pytest.mark.numeric
def test_the_statistics_of_features_are_not_trained():
    built = build_head(head(), features_record(shape=[5], cut="fc1"), 2)
    set_statistics(built, np.arange(5.0), np.arange(1.0, 6.0))
    train_a_step(built, RANDOM.normal(size=(8, 5)).astype(np.float32), 2)
    np.testing.assert_array_equal(built.get_layer("standardize").get_weights(), [np.arange(5), np.arange(1, 6)])


def test_in_bfloat16_the_weights_and_the_preprocessing_stay_in_float32():
    with computing_in("bfloat16"):
        backbone = build_backbone("vgg16", 32)
        network = add_head(pool_output(backbone, "average"), LayersConfig(), 2, 0.0, "network")
    assert keras.config.dtype_policy().name == "float32"
    assert {str(weight.dtype) for weight in network.weights} == {"float32"}
    assert backbone.get_layer("block1_conv1").compute_dtype == "bfloat16"
    assert backbone.get_layer("preprocessing").compute_dtype == "float32"
    assert network(images(1, 32)).dtype == "float32"


def test_weights_of_another_architecture_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/weights/mine"
    folder.mkdir(parents=True)
    build_backbone("four_conv", 32).save_weights(folder / "backbone.weights.h5")
    write_weights_record(folder, WeightsRecord("vgg16"), folder / "backbone.weights.h5")
    message = r"^backbones\.mine\.weights: backbone\.weights\.h5 does not fit vgg16 \(.*\)\. Give weights of "
    with pytest.raises(UserError, match=message) as error:
        load_backbone("mine", 32)
    assert "\n" not in str(error.value)


def on_top(backbone):
    return keras.Model(backbone.input, keras.layers.Dense(3)(backbone.output))


def in_a_sequential(backbone):
    return keras.Sequential([backbone, keras.layers.Dense(3)])


def in_a_model(backbone):
    pixels = keras.Input((16, 16, 3))
    return keras.Model(pixels, keras.layers.Dense(3)(backbone(keras.layers.Rescaling(1.0)(pixels))))


NESTED = (
    "has the backbone as one of its layers. Save the weights of that layer alone, as by model.layers[0].save_weights("
)
ON_TOP = "has further layers on top, load it in Keras and save it by model.save_weights('backbone.weights.h5')."


@pytest.mark.parametrize(
    ("wrap", "suffix", "remedy"),
    [
        (lambda backbone: backbone, ".weights.h5", None),
        (lambda backbone: backbone, ".keras", None),
        (lambda backbone: backbone, ".h5", None),
        (on_top, ".weights.h5", None),
        (on_top, ".keras", None),
        (on_top, ".h5", ON_TOP),
        *(
            (wrap, suffix, NESTED)
            for wrap in (in_a_sequential, in_a_model)
            for suffix in (".weights.h5", ".keras", ".h5")
        ),
    ],
)
def test_weights_that_a_user_saved_are_loaded_or_refused_with_the_remedy(wrap, suffix, remedy, tmp_path):
    backbone, file = build_backbone("four_conv", 16), tmp_path / f"backbone{suffix}"
    model = wrap(backbone)
    model.save_weights(file) if suffix == ".weights.h5" else model.save(file)
    if remedy:
        with pytest.raises(UserError, match=r"^b: backbone.* does not fit four_conv \(") as error:
            load_weights(build_backbone("four_conv", 16), file, "b")
        assert remedy in str(error.value) and "\n" not in str(error.value)
        file = tmp_path / "saved.weights.h5"
        (backbone if remedy == NESTED else model).save_weights(file)  # what the remedy says
    loaded = build_backbone("four_conv", 16)
    load_weights(loaded, file, "b")
    for actual, expected in zip(loaded.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(("architecture", "application"), [("vgg16", "VGG16"), ("mobilenet_v2", "MobileNetV2")])
def test_published_weights_in_the_legacy_format_are_loaded(architecture, application, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/weights/old"
    folder.mkdir(parents=True)
    published = getattr(keras.applications, application)(include_top=False, weights=None, input_shape=(64, 64, 3))
    with h5py.File(folder / "backbone.h5", "w") as file:
        save_weights_to_hdf5_group(file, published)
    write_weights_record(folder, WeightsRecord(architecture), folder / "backbone.h5")
    backbone, _ = load_backbone("old", 64)
    for old, new in zip(published.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_that_were_changed_on_disk_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/weights/mine"
    folder.mkdir(parents=True)
    file = folder / "backbone.weights.h5"
    build_backbone("four_conv", 32).save_weights(file)
    write_weights_record(folder, WeightsRecord("four_conv"), file)
    load_backbone("mine", 32)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="data/weights/mine is damaged"):
        load_backbone("mine", 32)


@pytest.mark.numeric
@pytest.mark.parametrize(("architecture", "application"), [("vgg16", "VGG16"), ("mobilenet_v2", "MobileNetV2")])
def test_the_published_imagenet_weights_give_the_published_activations(
    architecture, application, tmp_path, monkeypatch
):
    file = REAL_WEIGHTS / f"{architecture}_imagenet_notop.weights.h5"
    if not file.exists():
        pytest.skip(f"the ImageNet weights {file.name} are not available")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/weights/real"
    folder.mkdir(parents=True)
    (folder / "backbone.weights.h5").symlink_to(file)
    write_weights_record(folder, WeightsRecord(architecture), folder / "backbone.weights.h5")
    backbone, _ = load_backbone("real", 64)
    published = getattr(keras.applications, application)(include_top=False, weights=None, input_shape=(64, 64, 3))
    published.load_weights(file)
    pixels = images(2, 64)
    preprocess = getattr(keras.applications, architecture).preprocess_input
    expected = published(preprocess(pixels.astype(np.float32)))
    np.testing.assert_allclose(backbone(pixels), expected, rtol=1e-3, atol=1e-3)
