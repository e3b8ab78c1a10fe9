"""Keras and ONNX Runtime compute the same activations, and Keras runs whatever ONNX Runtime should not."""

import keras
import numpy as np
import pytest

from stages.backbones import inference
from stages.backbones.building import build_backbone, layer_names
from stages.backbones.cuts import up_to_cut
from stages.backbones.inference import (
    fastest_inference,
    keras_inference,
    onnx_inference,
    outputs_agree,
    resolve_precision,
)
from stages.backbones.runtime import make_deterministic

pytestmark = pytest.mark.numeric

PIXELS = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), np.uint8)


def build_network(architecture="mobilenet_v2", cuts=None):
    """A backbone with random weights and statistics, from the images to its cuts."""
    make_deterministic(1)
    backbone = build_backbone(architecture, 32)
    random = np.random.default_rng(2)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    parts = [up_to_cut(backbone, cut) for cut in cuts or [layer_names(backbone)[-1]]]
    return keras.Model(backbone.input, [part.output for part in parts])


@pytest.mark.parametrize("architecture", ["simple_cnn", "mobilenet_v2", "mobilenet_v3_small"])
def test_onnx_runtime_computes_the_activations_of_keras(architecture):
    model = build_network(architecture)
    (actual,), (expected,) = onnx_inference(model)(PIXELS[:9]), keras_inference(model)(PIXELS[:9])
    assert actual.dtype == np.float32
    # Both sum in float32 in their own order: random weights amplify the rounding of each layer.
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_several_cuts_are_returned_in_the_given_order():
    cuts = ["block_13_project_BN", "block_3_expand_relu", "out_relu"]
    model = build_network(cuts=cuts)
    actual, expected = onnx_inference(model)(PIXELS[:3]), keras_inference(model)(PIXELS[:3])
    assert [output.shape for output in actual] == [output.shape for output in expected]
    assert len({output.shape for output in actual}) == 3
    assert outputs_agree(actual, expected)


@pytest.fixture
def choose(monkeypatch):
    """A function that returns which of the two is chosen, without running either."""
    monkeypatch.setattr(inference, "FASTER_IN_ONNX_RUNTIME", {"mobilenet_v2"})
    monkeypatch.setattr(inference, "keras_inference", lambda model: lambda pixels: [np.ones((len(pixels), 2))])
    monkeypatch.setattr(inference, "onnx_inference", lambda model: lambda pixels: [np.full((len(pixels), 2), 1.0001)])

    def choose(architecture="mobilenet_v2", precision="float32", images=5000):
        run = fastest_inference(None, architecture, precision, images, PIXELS[:4])
        return {1.0: "Keras", 1.0001: "ONNX Runtime"}[run(PIXELS[:4])[0][0, 0]]

    return choose


def test_onnx_runtime_is_chosen_where_it_is_faster(choose, monkeypatch):
    assert choose() == "ONNX Runtime"
    assert choose(architecture="vgg16") == "Keras"
    assert choose(precision="bfloat16") == "Keras"
    assert choose(images=500) == "Keras"
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: ["gpu:0"] if kind == "gpu" else [])
    assert choose() == "Keras"


@pytest.mark.parametrize(
    "outputs", [lambda n: [np.full((n, 2), 1.01)], lambda n: [np.full((n, 2), np.nan)], lambda n: [np.ones((n, 3))]]
)
def test_keras_is_chosen_if_onnx_runtime_computes_something_else(choose, monkeypatch, outputs):
    monkeypatch.setattr(inference, "onnx_inference", lambda model: lambda pixels: outputs(len(pixels)))
    assert choose() == "Keras"


def test_a_network_that_cannot_be_converted_runs_in_keras(choose, monkeypatch):
    def fail(model):
        raise ValueError("unsupported layer")

    monkeypatch.setattr(inference, "onnx_inference", fail)
    assert choose() == "Keras"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512f avx512_bf16", "bfloat16"),
        ("fpu amx_bf16", "bfloat16"),
        ("fpu avx512f", "float32"),
        (None, "float32"),
    ],
)
def test_auto_is_bfloat16_if_processor_and_architecture_support_it(tmp_path, monkeypatch, flags, expected):
    monkeypatch.setattr(inference, "CPU_INFO", tmp_path / "cpuinfo")
    if flags:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    assert resolve_precision("auto", "vgg16") == expected
    assert resolve_precision("auto", "mobilenet_v2") == "float32"
    assert resolve_precision("bfloat16", "mobilenet_v2") == "bfloat16"
    assert resolve_precision("float32", "vgg16") == "float32"
