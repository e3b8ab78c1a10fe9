"""Backbones from models of transformers and timm compute what transformers and timm compute; see CONTRIBUTING.md."""

import subprocess
import sys
from importlib.util import find_spec

import keras
import numpy as np
import pytest

from stages import weights
from stages.backbones.pretrained import load_backbone
from stages.core.params import Params
from tests.parity_models import SIZE, TIMM, TRANSFORMERS, images
from tests.pipeline import ROOT

MISSING = [name for name in ("torch", "transformers", "timm") if find_spec(name) is None]
pytestmark = [
    pytest.mark.numeric,
    pytest.mark.skipif(
        bool(MISSING), reason=f"{', '.join(MISSING)} not installed: the comparison needs requirements-parity.txt"
    ),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of models by name."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, "-m", "tests.parity_models", folder], cwd=ROOT, check=True)
    return folder


@pytest.fixture
def convert(saved, tmp_path, monkeypatch):
    """The backbone of a model, its record, and what the model computes."""
    monkeypatch.chdir(tmp_path)

    def by_name(name):
        weights.main(Params({"backbones": {"b": {"architecture": "preset", "weights": str(saved / name)}}}), "b")
        return *load_backbone("b", SIZE), np.load(saved / name / "expected.npz")

    return by_name


def outputs(backbone, *layers):
    model = keras.Model(backbone.input, [backbone.get_layer(layer).output for layer in layers])
    return model.predict_on_batch(images())


def assert_close(actual, expected):
    # Sums in another order; a wrong conversion is off by the size of the activations.
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", [name for name in TRANSFORMERS if not name.startswith("swin")])
def test_class_token_patches_and_blocks_are_those_of_transformers(convert, name):
    backbone, record, expected = convert(name)
    prefix = TRANSFORMERS[name][-1]
    assert record.preset["prefix_tokens"] == prefix
    *blocks, tokens = outputs(backbone, "block1", "block2", "normalization")
    for number, block in enumerate(blocks, start=1):
        assert_close(block, expected[f"state{number}"])
    assert_close(tokens[:, 0], expected["last"][:, 0])
    assert_close(tokens[:, prefix:].mean(axis=1), expected["last"][:, prefix:].mean(axis=1))


@pytest.mark.parametrize("name", [name for name in TRANSFORMERS if name.startswith("swin")])
def test_patches_and_stages_of_swin_are_those_of_transformers(convert, name):
    backbone, _, expected = convert(name)
    merged, tokens = outputs(backbone, "stage1_merging", "normalization")
    assert_close(merged, expected["state1"])
    assert_close(tokens.mean(axis=1), expected["last"].mean(axis=1))


@pytest.mark.parametrize("name", TIMM)
def test_the_last_features_are_those_of_timm(convert, name):
    backbone, _, expected = convert(name)
    assert_close(backbone.predict_on_batch(images()), expected["last"])
