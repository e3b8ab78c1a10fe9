"""Saves small random models with transformers and timm, and what they compute.

Every weight is random, so that none is zero or one, where a lost one would not show. This runs in a process of its own,
because PyTorch and TensorFlow do not start in the same: `python -m tests.parity_models <folder>`.
"""

import sys
from pathlib import Path

import numpy as np

SIZE = 32
TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": SIZE, "patch_size": 8}
VIT, DINOV3 = {**TINY, "intermediate_size": 48}, {**TINY, "intermediate_size": 48, "num_register_tokens": 2}
SWIN = {"image_size": SIZE, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
GATED = {"use_gated_mlp": True, "hidden_act": "silu"}
# Model -> class, configuration, image processor and its settings, tokens before those of the patches.
TRANSFORMERS = {
    "vit": ("ViTModel", VIT, "ViT", {}, 1),
    "vit_large_epsilon": ("ViTModel", {**VIT, "layer_norm_eps": 0.1}, "ViT", {"do_normalize": False}, 1),
    "vit_with_a_head": ("ViTForImageClassification", VIT, "ViT", {"image_mean": [0.1, 0.2, 0.3]}, 1),
    "deit": ("DeiTModel", VIT, "DeiT", {"rescale_factor": 1 / 127.5}, 2),
    "deit_with_heads": ("DeiTForImageClassificationWithTeacher", {**VIT, "layer_norm_eps": 0.1}, "DeiT", {}, 2),
    "dinov2": ("Dinov2Model", TINY, "Bit", {"crop_size": 28}, 1),
    "dinov2_gated": ("Dinov2Model", {**TINY, "use_swiglu_ffn": True, "mlp_ratio": 2}, "Bit", {}, 1),
    "dinov2_with_a_head": ("Dinov2ForImageClassification", TINY, "Bit", {"do_rescale": False}, 1),
    "dinov2_registers": ("Dinov2WithRegistersModel", {**TINY, "num_register_tokens": 3}, "Bit", {}, 4),
    "dinov3": ("DINOv3ViTModel", DINOV3, "DINOv3ViT", {}, 3),
    "dinov3_gated": ("DINOv3ViTModel", {**DINOV3, **GATED, "key_bias": True, "rope_theta": 50.0}, "DINOv3ViT", {}, 3),
    "swin": ("SwinModel", SWIN, "ViT", {"image_mean": [0.4, 0.5, 0.6]}, 0),
    "swin_one_window": ("SwinModel", {**SWIN, "window_size": 8}, "ViT", {}, 0),
    "swin_with_a_head": ("SwinForImageClassification", {**SWIN, "qkv_bias": False}, "ViT", {}, 0),
}
# Of timm, some of each family; the other architectures differ in numbers only.
TIMM = ("resnet18", "resnet50", "resnetv2_50", "mobilenetv3_small_050", "mobilenetv3_large_100", "efficientnet_b0")
TIMM += ("efficientnet_lite0", "cspdarknet53", "cspresnet50", "cspresnext50", "darknet53")


def images() -> np.ndarray:
    """Four images (4, SIZE, SIZE, 3), uint8."""
    return np.random.default_rng(2).integers(0, 256, (4, SIZE, SIZE, 3)).astype(np.uint8)


def randomized(model):
    """The model with random weights, for inference."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, values in [*model.named_parameters(), *model.named_buffers()]:
            if values.is_floating_point() and "inv_freq" not in name:
                noise = torch.rand(values.shape, generator=generator)
                # Variances of batch normalization are positive, and activations neither vanish nor explode.
                values.copy_(0.5 + noise if values.ndim == 1 else (noise - 0.5) / values[0].numel() ** 0.5 * 3)
    return model.eval()


def save_transformers(name: str, folder: Path) -> None:
    """Save a model, its image processor, and its hidden states, the last one last."""
    import torch
    import transformers

    kind, config, processor, settings, _ = TRANSFORMERS[name]
    model_class = getattr(transformers, kind)
    model = randomized(model_class(model_class.config_class(**config)))
    model.save_pretrained(folder)
    processor = getattr(transformers, f"{processor}ImageProcessor")(**settings)
    processor.save_pretrained(folder)
    # The images are resized already.
    pixels = processor(list(images()), do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        base = getattr(model, model.base_model_prefix) if "For" in kind else model
        outputs = base(pixels, output_hidden_states=True)
    states = {f"state{number}": states.numpy() for number, states in enumerate(outputs.hidden_states)}
    np.savez(folder / "expected.npz", **states, last=outputs.last_hidden_state.numpy())


def save_timm(name: str, folder: Path) -> None:
    """Save a model and its last features (n, h, w, channels)."""
    import timm
    import torch
    from timm.models import save_for_hf

    model = randomized(timm.create_model(name, pretrained=False))
    save_for_hf(model, folder, safe_serialization=True)
    mean, std = (np.array(model.pretrained_cfg[key], np.float32) for key in ("mean", "std"))
    pixels = torch.tensor(((images() / np.float32(255) - mean) / std).transpose(0, 3, 1, 2))
    with torch.no_grad():
        features = model.forward_features(pixels)
    np.savez(folder / "expected.npz", last=features.numpy().transpose(0, 2, 3, 1))


if __name__ == "__main__":
    for model_name in TRANSFORMERS:
        save_transformers(model_name, Path(sys.argv[1]) / model_name)
    for model_name in TIMM:
        save_timm(model_name, Path(sys.argv[1]) / model_name)
