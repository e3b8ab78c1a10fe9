"""The architectures a study may name, and what can be known of them without building one.

Building a network takes seconds of imports, and every stage checks the study; so the layer names stand in
`layers.json`, written by `python -m stages.networks.layers` and held to the real networks by a test.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications"


@dataclass(frozen=True)
class Architecture:
    """What a study can ask of an architecture.

    smallest_image: side in pixels below which the network cannot be built.
    any_size: whether the weights of its layers fit images of another size than they were trained on.
    imagenet: address of the ImageNet weights without the classification layers, as Keras publishes them; or None.
    imagenet_md5: the MD5 that Keras publishes for that file; None where it publishes none.
    """

    smallest_image: int
    any_size: bool
    imagenet: str | None = None
    imagenet_md5: str | None = None


ARCHITECTURES = {
    "four_conv": Architecture(smallest_image=8, any_size=False),
    "vgg16": Architecture(
        smallest_image=32,
        any_size=True,
        imagenet=f"{KERAS_FILES}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        imagenet_md5="6d6bbae143d832006294945121d1f1fc",
    ),
    "mobilenet_v2": Architecture(
        smallest_image=32,
        any_size=True,
        imagenet=f"{KERAS_FILES}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
    ),
}

LAYERS_FILE = Path(__file__).with_name("layers.json")


@dataclass(frozen=True)
class Layer:
    """What can be done at a layer.

    separates: every path from the image to the last layer passes through it, so that the layers above can be run from
    its activations alone. image: its activations are an image (h, w, c), so that they can be pooled.
    """

    separates: bool
    image: bool


@cache
def layers_of(architecture: str) -> dict[str, Layer]:
    """The layers of an architecture by name, from the image upward."""
    table = json.loads(LAYERS_FILE.read_text(encoding="utf-8"))[architecture]
    return {name: Layer(**layer) for name, layer in table.items()}
