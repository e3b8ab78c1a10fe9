"""Decoding one image: from the bytes of a file to the pixels that are kept, and what tells it from others."""

import hashlib
import io
import warnings
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Others would start programs (EPS) or are no photographs. A camera's MPO, two pictures in one file, is opened as JPEG.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
Image.init()  # else Pillow knows only some of them before it has met a file that is none of those
SMALLEST_SIDE = 4  # pixels; less is no picture, but what a web page counts its visitors with
# 256 bits: the usual 64 take different chest X-rays for the same.
HASH_SIDE = 16


class Decoded(NamedTuple):
    """pixels: (size, size, 3) uint8.

    sha256: of the image in its full size, whatever size it is brought to. look: its perceptual hash (the signs of its
    low frequencies, pHash), 64 hexadecimal digits; images that look alike differ in few bits.
    """

    pixels: np.ndarray
    sha256: str
    perceptual_hash: str


def decode(content: bytes | np.ndarray, image_size: int, resize: str = "crop") -> Decoded:
    """Decode an image: turned upright by its EXIF orientation, RGB, made square and resized with antialiasing.

    content: an image file (of several frames the first is taken), or pixels, (height, width, 3) or (height, width)
    uint8. resize: `crop` to the middle square, `pad` to a square with black, or `stretch`.

    Raises what Pillow raises on files it cannot read, and ValueError with the reason for others that are no use.
    """
    if isinstance(content, np.ndarray):
        return _finished(Image.fromarray(content).convert("RGB"), image_size, resize)
    if not content:
        raise ValueError("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong with a file goes to the quarantine table or is no matter
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            opened = Image.open(io.BytesIO(content), formats=FORMATS)
        except UnidentifiedImageError:  # its own message holds a memory address, which differs on every run
            raise ValueError("the file is no image of a known format") from None
        with opened as image:
            image.load()  # broken pixels are told of only once
            return _finished(_as_rgb(_upright(image)), image_size, resize)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises nearly anything on broken EXIF data; the pixels are whole
        return image


def _finished(rgb: Image.Image, image_size: int, resize: str) -> Decoded:
    if min(rgb.size) < SMALLEST_SIDE:
        raise ValueError(f"the image has {rgb.width}x{rgb.height} pixels; each side needs at least {SMALLEST_SIDE}")
    sha256 = hashlib.sha256(f"{rgb.width}x{rgb.height}".encode() + rgb.tobytes()).hexdigest()
    perceptual_hash = str(imagehash.phash(rgb, hash_size=HASH_SIDE))
    size, method = (image_size, image_size), Image.Resampling.BICUBIC
    if resize == "crop":
        square = ImageOps.fit(rgb, size, method)
    elif resize == "pad":
        square = ImageOps.pad(rgb, size, method)
    else:
        square = rgb.resize(size, method)
    return Decoded(np.asarray(square), sha256, perceptual_hash)


def _as_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB; transparent parts become white, 16-bit gray keeps its upper eight bits."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers or fractions, of which nobody knows what is white")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
