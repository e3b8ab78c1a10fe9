"""Parameter-efficient tuning: which few weights of a frozen backbone are trained, and how they are stored and merged.

- `bias`: all biases, with the shifts of normalization layers (BitFit, Ben Zaken et al. 2022).
- `normalization`: the scales and shifts of all normalization layers (Frankle et al. 2021).
- `lora`: low-rank updates of the attention projections (Hu et al. 2022).

The frozen layers compute as in inference. A normalization layer whose scale and shift are trained stays frozen itself,
so batch normalization keeps its statistics: Keras takes the layer's attribute for these, and the variable's for the
optimizer.
"""

from pathlib import Path

import h5py
import keras
import numpy as np
from keras import layers

from stages.backbones.building import inner_layers
from stages.backbones.cuts import freeze_below
from stages.core.errors import UserError

BIASES = ("bias", "beta")
WHAT = {
    "bias": "biases",
    "normalization": "normalization layers with a scale or a shift",
    "lora": "attention layers with dense projections",
}


def tune(lower: keras.Model, tuning: str, rank: int, where: str) -> None:
    """Freeze a backbone up to its cut, but for the weights that a tuning trains; `lora` adds them.

    rank: of the low-rank updates. where: the setting at fault in the `UserError` if there is nothing to train.
    """
    freeze_below(lower, None)
    parts = [part for layer in lower.layers for part in [layer, *inner_layers(layer)]]
    if tuning == "lora":
        chosen = []
        for projection in attention_projections(parts):
            projection.enable_lora(rank)
            chosen += [projection.lora_kernel_a, projection.lora_kernel_b]
    else:
        chosen = [
            variable
            for part in parts
            for variable in part._trainable_variables  # its own, also while the layer is frozen
            if (variable.name in BIASES if tuning == "bias" else "Normalization" in type(part).__name__)
        ]
    if not chosen:
        raise UserError(f"{where}: the backbone has no {WHAT[tuning]} up to the cut. Use another tuning, or unfreeze.")
    for variable in chosen:
        variable.trainable = True


def attention_projections(parts: list[layers.Layer]) -> list[layers.Layer]:
    """The dense layers of attention among all layers of a backbone, each once: query, key, value and output."""
    projections: dict[int, layers.Layer] = {}
    for part in parts:
        inner = inner_layers(part)
        if _is_attention(part) and not any(map(_is_attention, inner)):
            projections |= {id(layer): layer for layer in inner if isinstance(layer, layers.Dense | layers.EinsumDense)}
    return list(projections.values())


def _is_attention(layer: layers.Layer) -> bool:
    return "attention" in type(layer).__name__.lower()


def merge_updates(model: keras.Model) -> None:
    """Add low-rank updates to their kernels, which leaves a model of plain layers that computes the same."""
    for layer in model._flatten_layers():
        if getattr(layer, "lora_enabled", False):
            # Not `layer.kernel`, which has the precision of the computation.
            update = keras.ops.matmul(layer.lora_kernel_a, layer.lora_kernel_b) * (layer.lora_alpha / layer.lora_rank)
            layer._kernel.assign(layer._kernel + update)
            del layer.lora_kernel_a, layer.lora_kernel_b
            layer.lora_enabled, layer.lora_rank = False, None


def stored_weights(model: keras.Model) -> list[keras.Variable]:
    """The weights that the file of a tuned model holds: those that were trained, and all of the head."""
    head = {id(weight) for weight in model.layers[-1].weights}
    return [weight for weight in model.weights if weight.trainable or id(weight) in head]


def save_stored(weights: list[np.ndarray], file: Path) -> None:
    """Write `stored_weights` by their number."""
    with h5py.File(file, "w") as content:
        for number, values in enumerate(weights):
            content[str(number)] = values


def load_stored(model: keras.Model, file: Path) -> None:
    """Give a model the weights of a file that `save_stored` wrote; `UserError` if they do not fit."""
    variables = stored_weights(model)
    try:
        with h5py.File(file) as content:
            values = [content[str(number)][()] for number in range(len(content))]
        if [array.shape for array in values] != [tuple(variable.shape) for variable in variables]:
            raise ValueError("other shapes")
    except (OSError, KeyError, ValueError):
        raise UserError(
            f"{file} does not hold the trained weights of {model.name}. Run `dvc repro` to train it again."
        ) from None
    for variable, array in zip(variables, values, strict=True):
        variable.assign(array)
