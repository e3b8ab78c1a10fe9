"""What models cost: multiply-adds, which are the same on every machine, and measured time, size and memory."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from stages.artifacts.costs import Cost
from stages.artifacts.models import ModelResult, Predictions, read_model_record
from stages.backbones.building import build_backbone
from stages.backbones.cuts import above_cut, freeze_below, up_to_cut
from stages.backbones.multiply_adds import multiply_adds, training_multiply_adds
from stages.evaluation.costs import total_training_multiply_adds
from tests.example_results import MACHINE, features_record, fine_tune_record, head_record, model_record


@pytest.mark.parametrize(
    ("application", "published"),
    [
        ("ResNet50", 3.8e9),  # He et al. 2016, table 1
        ("MobileNetV2", 300e6),  # Sandler et al. 2018, table 4
        ("EfficientNetB0", 390e6),  # Tan & Le 2019, table 2
    ],
)
def test_the_multiply_adds_of_a_network_are_the_published_ones(application, published):
    network = getattr(keras.applications, application)(weights=None)
    assert multiply_adds(network) == pytest.approx(published, rel=0.02)


def test_a_network_is_counted_up_to_a_cut_and_above_it():
    backbone = build_backbone("vgg16", 224)
    dense = 7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000  # which a backbone lacks
    assert multiply_adds(backbone) + dense == pytest.approx(15.5e9, rel=0.005)  # Simonyan & Zisserman 2015
    below, above = up_to_cut(backbone, "block1_pool"), above_cut(backbone, "block1_pool")
    assert multiply_adds(below) == 224 * 224 * 9 * (3 * 64 + 64 * 64)
    assert multiply_adds(below) + multiply_adds(above) == multiply_adds(backbone)


def test_every_kind_of_layer_is_counted():
    images = keras.Input((8, 8, 4))
    x = layers.Conv2D(6, 3, strides=2, groups=2, padding="same")(images)  # (4, 4, 6)
    convolution = 16 * 9 * 2 * 6
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)  # (2, 2, 12)
    depthwise = 4 * 9 * 12
    x = keras.Sequential([layers.SeparableConv2D(5, 2, padding="same"), layers.BatchNormalization()])(x)
    separable = 4 * (4 * 12 + 12 * 5)
    x = layers.Activation("relu")(layers.LayerNormalization()(x))
    shared = layers.Dense(5)
    x = layers.Add()([shared(x), shared(x)])
    dense = 2 * 4 * 5 * 5
    inner = keras.Input((2, 2, 5))
    nested = keras.Model(inner, layers.Dense(3)(layers.Flatten()(inner)))
    model = keras.Model(images, nested(x))
    assert multiply_adds(model) == convolution + depthwise + separable + dense + 20 * 3


def test_a_layer_that_cannot_be_counted_is_refused():
    tokens = keras.Input((7, 8))
    attention = layers.MultiHeadAttention(2, 4, name="attention")(tokens, tokens)
    with pytest.raises(TypeError, match=r"cannot count layer 'attention' \(MultiHeadAttention\)\. Add its class"):
        multiply_adds(keras.Model(tokens, attention))


def test_a_training_step_takes_three_forward_passes_of_trained_layers_and_one_of_frozen_ones():
    backbone = build_backbone("four_conv", 16)
    freeze_below(backbone, "conv3")
    below, above = (multiply_adds(part) for part in (up_to_cut(backbone, "pool1"), above_cut(backbone, "pool1")))
    assert training_multiply_adds(backbone) == below + 3 * above


def test_the_record_of_a_model_has_its_multiply_adds(here):
    convolutions = 16 * 16 * 9 * (3 * 32 + 32 * 32) + 8 * 8 * 9 * (32 * 64 + 64 * 64)
    hidden = 4 * 4 * 64 * 512
    base, fresh, probe, tuned, choice = map(read_model_record, ("base", "fresh", "probe", "cached", "choice"))
    assert base.multiply_adds == convolutions + hidden + 512 * 3
    assert fresh.multiply_adds == convolutions + 1024 * 8 + 8 * 3
    assert tuned.multiply_adds == base.multiply_adds
    below_probe = 16 * 16 * 9 * (3 * 32 + 32 * 32) + 8 * 8 * 9 * 32 * 64
    assert probe.provenance.features.multiply_adds == below_probe
    assert probe.multiply_adds == below_probe + 8 * 8 * 64 * 3
    # Training: 2 epochs of the network on 3 x 40 images, with the validation images after each.
    images = len(np.load("models/base/predictions.npz")["validation_index"])
    assert base.training_multiply_adds == 2 * (120 * 3 + images) * base.multiply_adds
    # The heads train only what is above the features, the fine-tune only what is above those that it starts from.
    images = len(np.load("models/fresh/predictions.npz")["validation_index"])
    assert fresh.training_multiply_adds == 2 * (120 * 3 + images) * (1024 * 8 + 8 * 3)
    upper = 8 * 8 * 9 * (32 * 64 + 64 * 64) + hidden + 512 * 3
    assert tuned.training_multiply_adds == 2 * (120 * 3 + images) * upper
    # Four candidates in the first of two repeats, one in the second; three views.
    head = choice.multiply_adds - choice.provenance.features.multiply_adds
    assert choice.training_multiply_adds == (4 + 1) * 2 * (3 * 120 * 3 + images) * head / 2
    # 120 images of 8 x 8 x 64 features: the products of all pairs of images, and the decomposition of their matrix.
    assert probe.training_multiply_adds == 120 * 120 * 4096 + 120**3


def result_of(record):
    """The result of a model with 10 validation images."""
    validation = Predictions(np.arange(10), np.zeros((2, 10, 3), np.float32))
    return ModelResult(record, Cost(1.0, 1.0, MACHINE), None, {"validation": validation})


def test_the_total_counts_everything_that_a_model_is_built_on_once():
    low, high = features_record(cut="conv4", multiply_adds=700), features_record(multiply_adds=1000)
    network = model_record("a-net", "network", training_multiply_adds=10**9)
    head = head_record("b-head", high, training_multiply_adds=10**6)
    tuned = fine_tune_record("b-tune", head, "conv4", features=low, training_multiply_adds=10**7)
    results = {record.name: result_of(record) for record in (network, head, tuned)}
    features = (240 + 10) * 1000  # training and validation images, to the higher of the two cut layers
    assert total_training_multiply_adds("a-net", results) == 10**9
    assert total_training_multiply_adds("b-head", results) == 10**9 + 10**6 + features
    assert total_training_multiply_adds("b-tune", results) == 10**9 + 10**6 + 10**7 + features
    two_views = head_record("b-head", replace(high, views=[{"flip": "horizontal"}]), training_multiply_adds=10**6)
    results["b-head"] = result_of(two_views)
    assert total_training_multiply_adds("b-head", results) == 10**9 + 10**6 + (2 * 240 + 10) * 1000
