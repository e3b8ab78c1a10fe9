"""Small ViT and DINOv2 as transformers saves them, written by hand, and what they compute, in NumPy."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy.special import erf

SIZE, PATCH, WIDTH, HEADS, BLOCKS, REGISTERS = 32, 8, 16, 2, 3, 2
CONFIG = {
    "image_size": SIZE,
    "patch_size": PATCH,
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "num_hidden_layers": BLOCKS,
}
CONFIGS = {
    "vit": {**CONFIG, "intermediate_size": 2 * WIDTH, "layer_norm_eps": 0.1},
    "dinov2": {**CONFIG, "mlp_ratio": 2},
    "dinov2_with_registers": {**CONFIG, "mlp_ratio": 2, "num_register_tokens": REGISTERS},
}
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
    "rescale_factor": 1 / 255,
    "size": {"height": SIZE, "width": SIZE},
}
# The names of two normalizations, two dense layers and the last normalization.
NAMES = {
    "vit": ("layernorm_before", "layernorm_after", "intermediate.dense", "output.dense"),
    "dinov2": ("norm1", "norm2", "mlp.fc1", "mlp.fc2"),
}


def tensors_of(kind: str) -> dict[str, np.ndarray]:
    """Random weights by the names of a model without a head."""
    numbers = np.random.default_rng(3)
    names = NAMES["vit" if kind == "vit" else "dinov2"]
    shapes = {
        "embeddings.cls_token": (1, 1, WIDTH),
        "embeddings.position_embeddings": (1, (SIZE // PATCH) ** 2 + 1, WIDTH),
        "embeddings.patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH),
        "embeddings.patch_embeddings.projection.bias": (WIDTH,),
        "layernorm.weight": (WIDTH,),
        "layernorm.bias": (WIDTH,),
    }
    if kind != "vit":
        shapes["embeddings.mask_token"] = (1, WIDTH)
    if kind == "dinov2_with_registers":
        shapes["embeddings.register_tokens"] = (1, REGISTERS, WIDTH)
    for block in range(BLOCKS):
        sizes = dict.fromkeys((f"attention.attention.{part}" for part in ("query", "key", "value")), (WIDTH, WIDTH))
        sizes |= {"attention.output.dense": (WIDTH, WIDTH)}
        sizes |= {names[0]: (WIDTH,), names[1]: (WIDTH,), names[2]: (2 * WIDTH, WIDTH), names[3]: (WIDTH, 2 * WIDTH)}
        for name, shape in sizes.items():
            shapes |= {f"encoder.layer.{block}.{name}.weight": shape, f"encoder.layer.{block}.{name}.bias": shape[:1]}
        if kind != "vit":
            shapes |= {f"encoder.layer.{block}.layer_scale{number}.lambda1": (WIDTH,) for number in (1, 2)}
    return {name: numbers.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def write_model(folder: Path, kind: str, prefix: str = "") -> None:
    """Write config.json, preprocessor_config.json and model.safetensors, the names in it with a prefix."""
    folder.mkdir()
    config = {"model_type": kind, **CONFIGS[kind]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    save_file({prefix + name: values for name, values in tensors_of(kind).items()}, folder / "model.safetensors")


def states(kind: str, images: np.ndarray) -> list[np.ndarray]:
    """The tokens (n, tokens, WIDTH) after the embedding, after each block, and after the last normalization."""
    weights, epsilon = tensors_of(kind), CONFIGS[kind].get("layer_norm_eps", 1e-6)
    norm1, norm2, dense1, dense2 = NAMES["vit" if kind == "vit" else "dinov2"]

    def dense(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def normalize(name, x):
        centered = x - x.mean(axis=-1, keepdims=True)
        centered /= np.sqrt((centered**2).mean(axis=-1, keepdims=True) + epsilon)
        return centered * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def heads(x):  # (n, heads, tokens, width of a head)
        return x.reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)

    def attention(name, x):
        query, key, value = (heads(dense(f"{name}.attention.{part}", x)) for part in ("query", "key", "value"))
        scores = np.exp(query @ key.transpose(0, 1, 3, 2) / np.sqrt(WIDTH / HEADS))
        mixed = scores / scores.sum(axis=-1, keepdims=True) @ value
        return dense(f"{name}.output.dense", mixed.transpose(0, 2, 1, 3).reshape(x.shape))

    pixels = (images / 255 - PROCESSOR["image_mean"]) / PROCESSOR["image_std"]
    side = SIZE // PATCH
    patches = (
        pixels.reshape(-1, side, PATCH, side, PATCH, 3).transpose(0, 1, 3, 5, 2, 4).reshape(len(images), side**2, -1)
    )
    projection = "embeddings.patch_embeddings.projection"
    x = patches @ weights[f"{projection}.weight"].reshape(WIDTH, -1).T + weights[f"{projection}.bias"]
    x = np.concatenate([np.tile(weights["embeddings.cls_token"], (len(x), 1, 1)), x], axis=1)
    x += weights["embeddings.position_embeddings"]
    if kind == "dinov2_with_registers":
        registers = np.tile(weights["embeddings.register_tokens"], (len(x), 1, 1))
        x = np.concatenate([x[:, :1], registers, x[:, 1:]], axis=1)
    result = [x]
    for block in range(BLOCKS):
        name = f"encoder.layer.{block}"
        scales = [weights.get(f"{name}.layer_scale{number}.lambda1", 1.0) for number in (1, 2)]
        x = x + attention(f"{name}.attention", normalize(f"{name}.{norm1}", x)) * scales[0]
        hidden = dense(f"{name}.{dense1}", normalize(f"{name}.{norm2}", x))
        x = x + dense(f"{name}.{dense2}", hidden * (1 + erf(hidden / np.sqrt(2))) / 2) * scales[1]
        result.append(x)
    return [*result, normalize("layernorm", x)]
