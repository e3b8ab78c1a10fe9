"""PyTorch for comparison: a network with the layers and weights of a Keras network, and plain loops over batches.

The project does not require PyTorch. Install it with
`pip install torch --index-url https://download.pytorch.org/whl/cpu`, or with `pip install torch` for a GPU. On a
processor its threads wait for each other at every layer. Other programs therefore slow it down several times, and
ratios measured beside them are meaningless.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np
import torch
from keras import layers
from torch import fx, nn

from stages.backbones.inference import Inference
from stages.backbones.preprocessing import Preprocessing, affine_preprocessing

ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU}
PRECISIONS = {"float32": "PyTorch, channels last", "bfloat16": "PyTorch in bfloat16"}  # and the names of the methods


class Pixels(nn.Module):
    """The preprocessing, from uint8 (n, h, w, 3) to float32 (n, 3, h, w) that is channels last in memory."""

    def __init__(self, preprocessing: Preprocessing):
        super().__init__()
        kernel, bias = affine_preprocessing(preprocessing)
        self.order = np.abs(kernel).argmax(axis=0).tolist()
        if np.count_nonzero(kernel) != 3:
            raise NotImplementedError(f"{preprocessing.name} mixes channels")
        self.register_buffer("scale", torch.tensor(kernel[self.order, range(3)]))
        self.register_buffer("bias", torch.tensor(bias))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        ordered = images if self.order == [0, 1, 2] else images[..., self.order]
        return ordered.float().mul_(self.scale).add_(self.bias).permute(0, 3, 1, 2)


def peer_of(model: keras.Model) -> fx.GraphModule:
    """Return the PyTorch version of a backbone, pooled or not, on a GPU if there is one.

    It maps uint8 images (n, h, w, 3) to the output, channels first; frozen layers stay frozen. Raises
    `NotImplementedError` for a layer that has no PyTorch version here.
    """
    graph, modules, nodes = fx.Graph(), {}, {}
    images = graph.placeholder("images")

    def call_layer(layer: layers.Layer, *args: keras.KerasTensor, **kwargs: bool) -> keras.KerasTensor:
        output = layer(*args, **kwargs)
        inputs = args[0] if isinstance(args[0], list) else args
        modules[layer.name] = module_of(layer, inputs[0].shape[1:3]).requires_grad_(layer.trainable)
        nodes[id(output)] = graph.call_module(layer.name, tuple(nodes.get(id(tensor), images) for tensor in inputs))
        return output

    clone = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call_layer)
    graph.output(nodes[id(clone.output)])
    for node in nodes.values():
        # In place as in PyTorch's own networks, unless another layer needs the activations before it.
        for module in modules[node.target].modules():
            if isinstance(module, tuple(ACTIVATIONS.values())):
                module.inplace = isinstance(modules[node.target], nn.Sequential) or len(node.args[0].users) == 1
    network = fx.GraphModule(modules, graph).eval()
    return network.to("cuda" if torch.cuda.is_available() else "cpu", memory_format=torch.channels_last)


def module_of(layer: layers.Layer, size: tuple[int, ...]) -> nn.Module:
    """Return a layer in PyTorch with its weights. size: height and width of its input."""
    if isinstance(layer, Preprocessing):
        return Pixels(layer)
    if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
        return convolution(layer, size)
    if isinstance(layer, layers.BatchNormalization):
        return normalization(layer)
    if isinstance(layer, layers.ReLU) and not layer.negative_slope and not layer.threshold:
        return {None: nn.ReLU, 6: nn.ReLU6}[layer.max_value]()
    if isinstance(layer, layers.Activation):
        return activation(layer)
    if isinstance(layer, layers.MaxPooling2D) and layer.padding == "valid":
        return nn.MaxPool2d(layer.pool_size, layer.strides)
    if isinstance(layer, layers.ZeroPadding2D):
        (top, bottom), (left, right) = layer.padding
        return nn.ZeroPad2d((left, right, top, bottom))
    if isinstance(layer, layers.GlobalAveragePooling2D) and not layer.keepdims:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if isinstance(layer, layers.Add):
        return Add()
    raise NotImplementedError(f"{layer.name} is a {type(layer).__name__}, which has no PyTorch version here")


class Add(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left + right


def activation(layer: layers.Layer) -> nn.Module:
    if layer.activation.__name__ not in ACTIVATIONS:
        raise NotImplementedError(
            f"{layer.name} has the activation {layer.activation.__name__}, which has no PyTorch version here"
        )
    return ACTIVATIONS[layer.activation.__name__]()


def convolution(layer: layers.Conv2D | layers.DepthwiseConv2D, size: tuple[int, ...]) -> nn.Sequential:
    """Return a convolution with its padding and activation; Keras pads strided ones more at the end."""
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    if isinstance(layer, layers.DepthwiseConv2D):  # (h, w, channels, multiplier)
        groups, kernel = kernel.shape[2], kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2])
    else:  # (h, w, in, out)
        groups, kernel = layer.groups, kernel.transpose(3, 2, 0, 1)
    near, far = [0, 0], [0, 0]
    if layer.padding == "same":
        reach = [(side - 1) * rate for side, rate in zip(layer.kernel_size, layer.dilation_rate, strict=True)]
        totals = [
            max(0, (n - 1) // stride * stride + 1 + extent - n)
            for n, stride, extent in zip(size, layer.strides, reach, strict=True)
        ]
        near, far = [total // 2 for total in totals], [total - total // 2 for total in totals]
    module = nn.Conv2d(
        kernel.shape[1] * groups,
        kernel.shape[0],
        layer.kernel_size,
        layer.strides,
        tuple(near) if near == far else 0,
        layer.dilation_rate,
        groups,
        layer.use_bias,
    )
    fill(module, weight=kernel, **({"bias": layer.bias} if layer.use_bias else {}))
    before = [] if near == far else [nn.ZeroPad2d((near[1], far[1], near[0], far[0]))]
    after = [] if layer.activation.__name__ == "linear" else [activation(layer)]
    return nn.Sequential(*before, module, *after)


def normalization(layer: layers.BatchNormalization) -> nn.BatchNorm2d:
    module = nn.BatchNorm2d(layer.moving_mean.shape[0], layer.epsilon, 1 - layer.momentum)
    learned = {"weight": layer.gamma, "bias": layer.beta}
    statistics = {"running_mean": layer.moving_mean, "running_var": layer.moving_variance}
    fill(module, **{name: values for name, values in learned.items() if values is not None}, **statistics)
    return module


def fill(module: nn.Module, **weights: np.ndarray | keras.Variable) -> None:
    """Set the weights of a module by name."""
    with torch.no_grad():
        for name, values in weights.items():
            getattr(module, name).copy_(torch.tensor(np.array(keras.ops.convert_to_numpy(values))))


def run_on_torch(network: nn.Module, precision: str) -> Inference:
    """Run a network in PyTorch with weights in float32; see `stages.backbones.inference.keras_inference`."""
    device = next(network.parameters()).device

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, precision == "bfloat16"):
            return [network(torch.from_numpy(pixels).to(device)).float().cpu().numpy()]

    return run


@dataclass(frozen=True)
class Batches:
    """The examples of an epoch: images[rows], uint8, with their labels (n,) int64, in batches of `size`."""

    images: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    size: int

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(self.rows), self.size):
            end = start + self.size
            yield torch.from_numpy(self.images[self.rows[start:end]]), torch.from_numpy(self.labels[start:end])


def train_on_torch(network: nn.Module, optimizer: torch.optim.Optimizer, precision: str, batches: Batches) -> float:
    """Train for an epoch and return the mean loss."""
    device = next(network.parameters()).device
    network.train()
    total = torch.zeros((), device=device)
    for images, labels in batches:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, precision == "bfloat16"):
            loss = nn.functional.cross_entropy(network(images.to(device)), labels.to(device))
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(labels)
    return float(total) / len(batches.rows)
