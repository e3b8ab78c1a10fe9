"""Fine-tunes that train few weights of a frozen backbone: what they change, store and compute."""

import copy
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import keras
import numpy as np
import pytest

from stages.artifacts.images import read_images
from stages.artifacts.models import read_model_record, read_result, weights_file
from stages.artifacts.weights import WEIGHTS_FOLDER, WeightsRecord, write_weights_record
from stages.backbones.building import build_backbone, inner_layers
from stages.backbones.layer_description import describe_layers
from stages.backbones.layer_table import format_layers
from stages.backbones.multiply_adds import training_multiply_adds
from stages.backbones.onnx_export import inference_model, write_onnx
from stages.backbones.pretrained import load_backbone, save_weights
from stages.backbones.registry import WITHOUT_NORMALIZATION
from stages.backbones.runtime import computing_in, make_deterministic
from stages.backbones.tuning import attention_projections, merge_updates, tune
from stages.core import measurement
from stages.core.errors import UserError
from stages.core.files import sha256_of
from stages.core.params import Params
from stages.training.exporting import keras_predictor, prepare_export, write_keras
from stages.training.full_model import load_full_model

SIZE = {"image_shape": [32, 32, 3]}
NARROW = {"patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16}
VIT = {"class_name": "ViTBackbone", "config": {**SIZE, **NARROW, "mlp_dim": 32}}
# Other ways of KerasHub to build attention: dense layers by other names, windows, a wrapped layer.
TRANSFORMERS = [
    VIT,
    {"class_name": "DINOV2Backbone", "config": {**SIZE, **NARROW, "intermediate_dim": 32}},
    {"class_name": "DINOV3Backbone", "config": {**SIZE, **NARROW, "intermediate_dim": 32}},
    {"class_name": "CLIPVisionEncoder", "config": {**SIZE, **NARROW, "intermediate_dim": 32}},
    {
        "class_name": "SwinTransformerBackbone",
        "config": {**SIZE, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
    },
]
TUNED = {"dataset": "digits", "task": "few"}
FINE_TUNES = {
    "cnn-bias": {**TUNED, "backbone": "cnn", "head": "cnn-probe", "features": "cnn-top", "tuning": "bias"},
    "cnn-norm": {**TUNED, "backbone": "cnn", "head": "cnn-head", "features": "cnn-top", "tuning": "normalization"},
    "vit-bias": {**TUNED, "backbone": "vit", "head": "vit-probe", "features": "vit-top", "tuning": "bias"},
    "vit-norm": {**TUNED, "backbone": "vit", "head": "vit-probe", "features": "vit-top", "tuning": "normalization"},
    "vit-lora": {**TUNED, "backbone": "vit", "head": "vit-probe", "features": "vit-top", "tuning": "lora", "rank": 2},
}
STUDY = {
    "seed": 3,
    "datasets": {"digits": {"source": "digits", "image_size": 32}},
    "folders": {},
    "tasks": {"few": {"dataset": "digits", "include": [0, 1, 2], "validation": 0.2, "test": 0.2}},
    "backbones": {name: {"architecture": "mobilenet_025", "weights": "weights.h5"} for name in ("cnn", "vit")},
    "networks": {},
    "features": {
        # Low, because random weights leave little of an image further up.
        "cnn-top": {"dataset": "digits", "backbone": "cnn", "cut": "conv_pw_2_relu", "pooling": "average"},
        "vit-top": {"dataset": "digits", "backbone": "vit", "cut": "block2", "pooling": "class_token"},
    },
    "heads": {
        "cnn-head": {
            "task": "few",
            "features": "cnn-top",
            "hidden": [8],
            "activation": "tanh",
            "batch_normalization": True,
        }
    },
    "probes": {name: {"task": "few", "features": f"{name[:3]}-top"} for name in ("cnn-probe", "vit-probe")},
    "fine_tunes": FINE_TUNES,
    "training": {
        "epochs": 2,
        "batch_size": 8,
        "optimizer": "adam",
        "learning_rate": 0.01,
        "early_stopping": None,
        "repeats": 2,
        "max_train_per_class": 10,
    },
}
STAGES = [
    *(
        ("download", "digits"),
        ("prepare", "digits"),
        ("split", "few"),
        ("features", "cnn-top"),
        ("features", "vit-top"),
    ),
    *(("head", "cnn-head"), ("probe", "cnn-probe"), ("probe", "vit-probe")),
    *(("fine_tune", name) for name in FINE_TUNES),
]


def preset_of(described: dict) -> dict:
    """The preset of a weights record, with its layers."""
    preset = {**described, "scale": [1 / 255] * 3, "offset": [0.0] * 3, "image_size": 32}
    preset |= {"class_token": True, "prefix_tokens": 1, "layers": ""}
    return {**preset, "layers": format_layers(describe_layers(build_backbone("small", 32, preset)))}


def write_backbone(name: str, architecture: str, preset: dict | None = None) -> None:
    """Weights that stand for pretrained ones."""
    folder = WEIGHTS_FOLDER / name
    folder.mkdir(parents=True)
    make_deterministic(7)
    file = folder / "backbone.weights.h5"
    save_weights(build_backbone(architecture, 32, preset), file)
    write_weights_record(folder, WeightsRecord(architecture, preset=preset), file)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for limit in ("SHORTEST", "LONGEST"):
            patch.setattr(measurement, limit, 0)
        write_backbone("cnn", "mobilenet_025")
        write_backbone("vit", "small", preset_of(VIT))
        for stage, entry in STAGES:
            import_module(f"stages.{stage}").main(Params(copy.deepcopy(STUDY)), entry)
    return folder


@pytest.fixture
def there(tuned, tmp_path, monkeypatch):
    shutil.copytree(tuned, tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")


def changed_weights(name: str) -> set[str]:
    """The names of the kinds of weights in which a model differs from its backbone."""
    backbone, model = load_backbone(name[:3], 32)[0], load_full_model(read_model_record(name))
    changed = set()
    for before in backbone.layers:
        if before.name not in [layer.name for layer in model.layers]:
            continue  # above the cut
        after = model.get_layer(before.name)
        for old_part, part in zip([before, *inner_layers(before)], [after, *inner_layers(after)], strict=True):
            for kind in ("_trainable_variables", "_non_trainable_variables"):
                pairs = zip(getattr(old_part, kind), getattr(part, kind), strict=True)
                changed |= {new.name for old, new in pairs if not np.array_equal(old, new)}
    return changed


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("cnn-bias", {"beta"}),  # convolutions before batch normalization have no biases of their own
        ("cnn-norm", {"beta", "gamma"}),
        ("vit-bias", {"beta", "bias"}),
        ("vit-norm", {"beta", "gamma"}),
        ("vit-lora", {"kernel"}),
    ],
)
def test_a_tuning_changes_its_weights_and_no_others(there, name, kinds):
    assert changed_weights(name) == kinds


@pytest.mark.parametrize("name", FINE_TUNES)
def test_a_tuned_model_is_rebuilt_from_its_backbone_and_a_small_file(there, name):
    record, test = read_model_record(name), read_result(name).predictions["test"]
    pixels = read_images("digits").pixels[test.index]
    for repeat in range(2):
        model = load_full_model(replace(record, best_repeat=repeat))
        np.testing.assert_allclose(model.predict(pixels, verbose=0), test.probabilities[repeat], atol=1e-4)
    stored, backbone = (path.stat().st_size for path in (weights_file(name, 0), used_backbone(name)))
    assert stored < backbone / 2
    assert not any("lora" in weight.name for weight in model.weights)
    assert model.count_params() == record.total_parameters


def used_backbone(name: str) -> Path:
    return WEIGHTS_FOLDER / name[:3] / "backbone.weights.h5"


def test_the_record_counts_what_was_trained_and_what_a_model_in_use_costs(there):
    records = {name: read_model_record(name) for name in (*FINE_TUNES, "vit-probe")}
    head = (16 + 1) * 3
    # Per block four projections of 16 x 16, by KerasHub of (16, 2, 8) and (2, 8, 16); see Keras's enable_lora.
    inputs, output = (16 * 2 * 2) + 2 * 8, (2 * 8 * 2) + 2 * 16
    assert records["vit-lora"].trained_parameters == 2 * (3 * inputs + output) + head
    assert records["vit-norm"].trained_parameters == 2 * 2 * 2 * 16 + head
    for name in ("vit-lora", "vit-bias", "vit-norm"):
        assert records[name].multiply_adds == records["vit-probe"].multiply_adds
        assert records[name].total_parameters == records["vit-probe"].total_parameters
        assert records[name].provenance.features is None and records[name].batch_statistics_gap is None


def test_a_tuned_model_needs_the_weights_of_its_backbone(there):
    shutil.rmtree(WEIGHTS_FOLDER / "vit")
    write_backbone("vit", "small", preset_of({**VIT, "config": {**VIT["config"], "mlp_dim": 48}}))
    with pytest.raises(UserError, match=r"^models/vit-lora does not belong to data/weights/vit: it was trained with"):
        load_full_model(read_model_record("vit-lora"))


def test_a_file_of_another_tuning_is_refused(there):
    shutil.copy(weights_file("vit-bias", 0), weights_file("vit-lora", 0))
    sha256 = sha256_of(weights_file("vit-lora", 0))
    record = replace(read_model_record("vit-lora"), best_repeat=0, weights_sha256=[sha256] * 2)
    with pytest.raises(UserError, match=r"repeat-0\.weights\.h5 does not hold the trained weights of vit-lora\. Run"):
        load_full_model(record)


@pytest.mark.parametrize("name", ["cnn-norm", "vit-lora"])
def test_an_exported_file_predicts_the_same_without_low_rank_parts(there, name):
    export = prepare_export(read_model_record(name))
    write_keras(export.model, export.metadata, Path("model.keras"))
    write_onnx(inference_model(export.model, name), Path("model.onnx"))
    import onnxruntime

    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    _, problem = export.compare(
        keras_predictor(Path("model.keras")), lambda pixels: session.run(None, {images.name: pixels})[0]
    )
    assert problem == ""
    loaded = keras.saving.load_model("model.keras", compile=False)
    assert not any("lora" in weight.path for weight in loaded.weights)


@pytest.mark.parametrize("name", ["cnn-norm", "vit-lora"])
def test_the_same_training_writes_the_same_file(there, name):
    before = [sha256_of(weights_file(name, repeat)) for repeat in range(2)]
    import_module("stages.fine_tune").main(Params(copy.deepcopy(STUDY)), name)
    assert [sha256_of(weights_file(name, repeat)) for repeat in range(2)] == before


@pytest.mark.parametrize("described", TRANSFORMERS, ids=lambda described: described["class_name"])
def test_updates_of_all_projections_merge_to_the_same_network(described):
    backbone = build_backbone("small", 32, preset_of(described))
    parts = [part for layer in backbone.layers for part in [layer, *inner_layers(layer)]]
    assert len(attention_projections(parts)) == (4 if "Swin" in described["class_name"] else 8)
    tune(backbone, "lora", 2, "fine_tunes.x.tuning")
    assert all("lora" in weight.name for weight in backbone.trainable_weights)
    plain = 2 * len(attention_projections(parts))
    assert len(backbone.trainable_weights) == plain
    random = np.random.default_rng(0)
    for weight in backbone.trainable_weights:
        weight.assign(random.normal(0, 0.1, weight.shape))
    pixels = random.integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    before = np.asarray(backbone(pixels, training=False))
    merge_updates(backbone)
    assert backbone.trainable_weights == []
    np.testing.assert_allclose(np.asarray(backbone(pixels, training=False)), before, rtol=1e-5, atol=1e-5)


def test_updates_are_merged_in_float32_whatever_the_computation():
    with computing_in("bfloat16"):
        backbone = build_backbone("small", 32, preset_of(VIT))
    tune(backbone, "lora", 2, "fine_tunes.x.tuning")
    projection = attention_projections([part for layer in backbone.layers for part in inner_layers(layer)])[0]
    projection.lora_kernel_b.assign(np.full(projection.lora_kernel_b.shape, 0.01))
    kernel, a, b = map(np.asarray, (projection._kernel, projection.lora_kernel_a, projection.lora_kernel_b))
    merge_updates(backbone)
    np.testing.assert_allclose(np.asarray(projection._kernel), kernel + a @ b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("architecture", "tuning", "what"),
    [
        ("simple_cnn", "normalization", "normalization layers with a scale or a shift"),
        ("simple_cnn", "lora", "attention layers with dense projections"),
        ("mobilenet_025", "lora", "attention layers with dense projections"),
    ],
)
def test_a_backbone_without_the_parts_of_a_tuning_is_refused(architecture, tuning, what):
    with pytest.raises(UserError, match=f"^fine_tunes.x.tuning: the backbone has no {what} up to the cut. Use another"):
        tune(build_backbone(architecture, 32), tuning, 8, "fine_tunes.x.tuning")


@pytest.mark.parametrize("architecture", ["four_conv", "simple_cnn", "vgg16", "mobilenet_025", "convnext_tiny"])
def test_the_check_knows_which_architectures_have_no_normalization(architecture):
    parts = [part for layer in build_backbone(architecture, 32).layers for part in [layer, *inner_layers(layer)]]
    normalizes = any("Normalization" in type(part).__name__ and part._trainable_variables for part in parts)
    assert normalizes == (architecture not in WITHOUT_NORMALIZATION)


def test_a_training_step_goes_back_through_frozen_layers_without_the_gradient_of_their_kernels():
    backbone = build_backbone("simple_cnn", 32)
    forward = training_multiply_adds(backbone) // 3
    tune(backbone, "bias", 8, "fine_tunes.x.tuning")
    assert training_multiply_adds(backbone, is_tuned=True) == 2 * forward
