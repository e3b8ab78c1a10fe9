"""How models in the formats of Hugging Face's transformers and of timm scale pixels, read from their own files.

KerasHub has no image converter for most of them.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

from stages.core.errors import UserError

PROCESSOR_FILE = "preprocessor_config.json"
# Of transformers: they resize, crop, rescale and normalize images, and change nothing else.
PROCESSORS = ("Bit", "CLIP", "ConvNext", "DeiT", "DINOv3ViT", "Siglip", "ViT")
STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}
COLORS = 3


def transformers_pixels(folder: Path, where: str) -> dict[str, Any]:
    """`scale`, `offset` and `image_size` as in `WeightsRecord`, the size None if the image processor does not say.

    where: the setting, for messages. `UserError` if the processor is missing, or does what this project cannot do.
    """
    try:
        processor = json.loads((folder / PROCESSOR_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{where}: the preset does not say how pixels are scaled, because it has no {PROCESSOR_FILE}. Save its "
            "image processor too: processor.save_pretrained(folder)."
        ) from None
    except ValueError:  # not JSON, or not UTF-8
        processor = None
    if not isinstance(processor, dict):
        raise _unusable(where, PROCESSOR_FILE, ["it is not a JSON object"])
    problems = []
    kind = processor.get("image_processor_type") or processor.get("feature_extractor_type")
    if kind is not None and not re.fullmatch(
        rf"({'|'.join(PROCESSORS)})(ImageProcessor|FeatureExtractor)\w*", str(kind)
    ):
        problems.append(f"{kind!r} is not a known image processor")
    if unknown := [key for key, value in processor.items() if key.startswith("do_") and value and key not in STEPS]:
        problems.append(f"{', '.join(unknown)} cannot be done here")
    factor, mean, std = 1.0, 0.0, 1.0
    if processor.get("do_rescale") is not False:
        factor = processor.get("rescale_factor", 1 / 255)
    if processor.get("do_normalize") is not False:
        mean, std = processor.get("image_mean"), processor.get("image_std")
    is_cropped = processor.get("crop_size") is not None and processor.get("do_center_crop") is not False
    size_key = "crop_size" if is_cropped else "size"
    size = processor.get(size_key)
    if size is not None and (size := _side(size)) is None:
        problems.append(f"{size_key} {json.dumps(processor[size_key])} is not the side of a square")
    names = ("rescale_factor", "image_mean", "image_std")
    return _pixels((factor, mean, std), names, size, problems, (where, PROCESSOR_FILE))


def timm_pixels(config: dict[str, Any], where: str) -> dict[str, Any]:
    """As `transformers_pixels`. config: the content of config.json."""
    pretrained, problems = config.get("pretrained_cfg"), []
    if not isinstance(pretrained, dict):
        raise _unusable(where, "config.json", ["it has no pretrained_cfg, which says how pixels are scaled"])
    match pretrained.get("input_size"):
        case [3, int(height), int(width)] if height == width > 0:
            size = height
        case other:
            size = None
            problems.append(f"pretrained_cfg.input_size {json.dumps(other)} is not that of square color images")
    names = ("", "pretrained_cfg.mean", "pretrained_cfg.std")
    values = (1 / 255, pretrained.get("mean"), pretrained.get("std"))
    return _pixels(values, names, size, problems, (where, "config.json"))


def square_side(size: Any) -> int | None:
    """The side of a square given as a number, [height, width] or {height, width}; None if it is no square."""
    match size:
        case int(side) | [int(side)] if side > 0:
            return int(side)
        case [int(height), int(width)] | {"height": int(height), "width": int(width)} if height == width > 0:
            return height
    return None


def _side(size: Any) -> int | None:
    """As `square_side`; also of images whose shorter side is given, because `prepare` makes images square."""
    match size:
        case {"shortest_edge": int(side)} if side > 0:
            return side
    return square_side(size)


def _pixels(
    values: tuple[Any, Any, Any], names: tuple[str, ...], size: int | None, problems: list[str], place: tuple[str, str]
) -> dict[str, Any]:
    """(pixels * factor - mean) / std as scale and offset. values: factor, mean and std. place: setting and file."""
    channels = [_channels(value) for value in values]
    for name, value, numbers in zip(names, values, channels, strict=True):
        may_be_zero = name.endswith("mean")
        if numbers is None or (0 in numbers and not may_be_zero):
            number = "a number" if may_be_zero else "a number other than 0"
            what = "is missing" if value is None else f"is {json.dumps(value)}, not {number} for each color"
            problems.append(f"{name} {what}")
    if problems:
        raise _unusable(*place, problems)
    scale = [factor / std for factor, _, std in zip(*channels, strict=True)]
    offset = [-mean / std for _, mean, std in zip(*channels, strict=True)]
    return {"scale": scale, "offset": offset, "image_size": size}


def _channels(value: Any) -> list[float] | None:
    """A finite number per color, from one number or a list of them; None if it is neither."""
    numbers = value if isinstance(value, list) else [value] * COLORS
    is_valid = all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
    return [float(number) for number in numbers] if is_valid and len(numbers) == COLORS else None


def _unusable(where: str, file: str, problems: list[str]) -> UserError:
    return UserError(
        f"{where}: {file} cannot be used ({'; '.join(problems)}). Correct the file, or give another preset."
    )
