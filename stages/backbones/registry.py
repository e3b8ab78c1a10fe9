"""The architectures that a study can name, and their properties that need no network to be built."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """Properties of an architecture.

    smallest_image: side in pixels of the smallest images that it accepts; for applications, the limit of Keras.
    any_size: whether its weights fit images of another size than those it was trained on.
    application: the function of keras.applications that builds it; None for the project's own networks.
    alpha: width of a MobileNet relative to the published one; None for all other architectures.
    """

    smallest_image: int
    any_size: bool
    application: str | None = None
    alpha: float | None = None


WITHOUT_NORMALIZATION = frozenset({"four_conv", "simple_cnn", "vgg16", "vgg19"})


def _application(application: str, smallest_image: int = 32, alpha: float | None = None) -> Architecture:
    return Architecture(smallest_image, True, application, alpha)


ARCHITECTURES = {
    "four_conv": Architecture(smallest_image=8, any_size=False),
    "simple_cnn": Architecture(smallest_image=16, any_size=True),
    "vgg16": _application("VGG16"),
    "vgg19": _application("VGG19"),
    "resnet50": _application("ResNet50"),
    "resnet101": _application("ResNet101"),
    "resnet152": _application("ResNet152"),
    "resnet50_v2": _application("ResNet50V2"),
    "resnet101_v2": _application("ResNet101V2"),
    "resnet152_v2": _application("ResNet152V2"),
    "inception_v3": _application("InceptionV3", smallest_image=75),
    "inception_resnet_v2": _application("InceptionResNetV2", smallest_image=75),
    "xception": _application("Xception", smallest_image=71),
    "densenet121": _application("DenseNet121"),
    "densenet169": _application("DenseNet169"),
    "densenet201": _application("DenseNet201"),
    "mobilenet": _application("MobileNet"),
    "mobilenet_075": _application("MobileNet", alpha=0.75),
    "mobilenet_050": _application("MobileNet", alpha=0.5),
    "mobilenet_025": _application("MobileNet", alpha=0.25),
    "mobilenet_v2": _application("MobileNetV2"),
    "mobilenet_v3_small": _application("MobileNetV3Small"),
    "mobilenet_v3_large": _application("MobileNetV3Large"),
    "nasnet_mobile": _application("NASNetMobile"),
    "nasnet_large": _application("NASNetLarge"),
    "efficientnet_b0": _application("EfficientNetB0"),
    "efficientnet_b1": _application("EfficientNetB1"),
    "efficientnet_b2": _application("EfficientNetB2"),
    "efficientnet_b3": _application("EfficientNetB3"),
    "efficientnet_b4": _application("EfficientNetB4"),
    "efficientnet_b5": _application("EfficientNetB5"),
    "efficientnet_b6": _application("EfficientNetB6"),
    "efficientnet_b7": _application("EfficientNetB7"),
    "efficientnet_v2_b0": _application("EfficientNetV2B0"),
    "efficientnet_v2_b1": _application("EfficientNetV2B1"),
    "efficientnet_v2_b2": _application("EfficientNetV2B2"),
    "efficientnet_v2_b3": _application("EfficientNetV2B3"),
    "efficientnet_v2_s": _application("EfficientNetV2S"),
    "efficientnet_v2_m": _application("EfficientNetV2M"),
    "efficientnet_v2_l": _application("EfficientNetV2L"),
    "convnext_tiny": _application("ConvNeXtTiny"),
    "convnext_small": _application("ConvNeXtSmall"),
    "convnext_base": _application("ConvNeXtBase"),
    "convnext_large": _application("ConvNeXtLarge"),
    "convnext_xlarge": _application("ConvNeXtXLarge"),
}
