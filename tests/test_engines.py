"""A frozen network gives the same activations whatever runs it, and Keras runs it where anything else would not."""

import keras
import numpy as np
import pytest

from stages.backbones import inference
from stages.backbones.building import build_backbone, layer_names
from stages.backbones.cuts import up_to_cut
from stages.backbones.inference import agree, fastest_inference, keras_inference, onnx_inference, resolve_precision
from stages.backbones.runtime import make_deterministic

PIXELS = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), np.uint8)


def network(architecture="mobilenet_v2", cuts=None):
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
def test_onnx_runtime_gives_the_activations_of_keras(architecture):
    model = network(architecture)
    (found,), (expected,) = onnx_inference(model)(PIXELS[:9]), keras_inference(model)(PIXELS[:9])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_several_cuts_come_in_their_order():
    cuts = ["block_13_project_BN", "block_3_expand_relu", "out_relu"]
    model = network(cuts=cuts)
    found, expected = onnx_inference(model)(PIXELS[:3]), keras_inference(model)(PIXELS[:3])
    assert [each.shape for each in found] == [each.shape for each in expected]
    assert len({each.shape for each in found}) == 3
    assert agree(found, expected)


@pytest.fixture
def taken(monkeypatch):
    """Which way is taken, without one of them being run."""
    monkeypatch.setattr(inference, "ON_ONNX_RUNTIME", {"mobilenet_v2"})
    monkeypatch.setattr(inference, "run_on_keras", lambda model: lambda pixels: [np.ones((len(pixels), 2))])
    monkeypatch.setattr(
        inference, "run_on_onnx_runtime", lambda model: lambda pixels: [np.full((len(pixels), 2), 1.0001)]
    )

    def way(architecture="mobilenet_v2", precision="float32", images=5000):
        found = fastest_inference(None, architecture, precision, images, PIXELS[:4])(PIXELS[:4])[0][0, 0]
        return {1.0: "Keras", 1.0001: "ONNX Runtime"}[found]

    return way


def test_onnx_runtime_is_taken_where_it_is_faster(taken, monkeypatch):
    assert taken() == "ONNX Runtime"
    assert taken(architecture="vgg16") == "Keras"
    assert taken(precision="bfloat16") == "Keras"
    assert taken(images=500) == "Keras"
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: ["gpu:0"] if kind == "gpu" else [])
    assert taken() == "Keras"


@pytest.mark.parametrize(
    "activations", [lambda n: [np.full((n, 2), 1.01)], lambda n: [np.full((n, 2), np.nan)], lambda n: [np.ones((n, 3))]]
)
def test_what_disagrees_with_keras_is_not_taken(taken, monkeypatch, activations):
    monkeypatch.setattr(inference, "run_on_onnx_runtime", lambda model: lambda pixels: activations(len(pixels)))
    assert taken() == "Keras"


def test_a_network_that_cannot_be_converted_runs_on_keras(taken, monkeypatch):
    def refuse(model):
        raise ValueError("no such layer")

    monkeypatch.setattr(inference, "run_on_onnx_runtime", refuse)
    assert taken() == "Keras"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512f avx512_bf16", "bfloat16"),
        ("fpu amx_bf16", "bfloat16"),
        ("fpu avx512f", "float32"),
        (None, "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_has_it_and_the_features_stand_it(tmp_path, monkeypatch, flags, expected):
    monkeypatch.setattr(inference, "CPU_INFO", tmp_path / "cpuinfo")
    if flags:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    assert resolve_precision("auto", "vgg16") == expected
    assert resolve_precision("auto", "mobilenet_v2") == "float32"
    assert resolve_precision("bfloat16", "mobilenet_v2") == "bfloat16"
    assert resolve_precision("float32", "vgg16") == "float32"
