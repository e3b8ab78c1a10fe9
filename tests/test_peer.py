"""The PyTorch networks of the benchmarks compute what the Keras networks compute; skipped without PyTorch."""

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.peer import Batches, peer_of, run_on_torch, train_on_torch  # noqa: E402
from stages.backbones.building import build_backbone, layer_names  # noqa: E402
from stages.backbones.cuts import freeze_below, up_to_cut  # noqa: E402
from stages.backbones.inference import keras_inference  # noqa: E402

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 50, 50, 3), np.uint8)  # halved, 50 becomes odd


def pooled_network(architecture):
    """A pooled backbone with random weights and statistics."""
    keras.utils.set_random_seed(1)
    backbone = build_backbone(architecture, PIXELS.shape[1])
    random = np.random.default_rng(2)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return up_to_cut(backbone, layer_names(backbone)[-1], "average")


@pytest.mark.parametrize("architecture", ["vgg16", "mobilenet", "mobilenet_v2", "resnet50", "resnet50_v2"])
def test_pytorch_computes_the_features_of_keras(architecture):
    model = pooled_network(architecture)
    (actual,), (expected,) = run_on_torch(peer_of(model), "float32")(PIXELS), keras_inference(model)(PIXELS)
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def convolution(padding, strides, dilation, depthwise):
    images = keras.Input((9, 12, 3))
    options = {"strides": strides, "padding": padding, "dilation_rate": dilation, "activation": "silu"}
    layer = (
        keras.layers.DepthwiseConv2D if depthwise else lambda *args, **kwargs: keras.layers.Conv2D(4, *args, **kwargs)
    )
    return keras.Model(images, layer(3, bias_initializer="random_normal", **options)(images))


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(
    ("padding", "strides", "dilation"), [("same", 2, 1), ("valid", 2, 1), ("same", 1, 2), ("same", 3, 1)]
)
def test_padding_is_that_of_keras(padding, strides, dilation, depthwise):
    model = convolution(padding, strides, dilation, depthwise)
    images = np.random.default_rng(0).random((2, 9, 12, 3), np.float32)
    with torch.inference_mode():
        actual = peer_of(model).to("cpu")(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(actual, model.predict(images, verbose=0), atol=1e-5)


def test_the_error_names_an_unsupported_layer():
    with pytest.raises(NotImplementedError, match=r"is a .*, which has no PyTorch version here"):
        peer_of(pooled_network("efficientnet_b0"))


def test_training_changes_unfrozen_layers_only():
    model = pooled_network("vgg16")
    freeze_below(model, "block5_conv2")
    peer = peer_of(model)
    before = {name: weight.clone() for name, weight in peer.state_dict().items()}
    trained = [parameter for parameter in peer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.1)
    labels = np.arange(len(PIXELS)) % 2
    batches = Batches(PIXELS, np.arange(len(PIXELS))[::-1].copy(), labels, 2)
    loss = train_on_torch(peer, optimizer, "float32", batches)
    assert np.isfinite(loss)
    changed = {
        name.split(".")[0] for name, weight in peer.state_dict().items() if not torch.equal(weight, before[name])
    }
    assert changed == {"block5_conv2", "block5_conv3"}
