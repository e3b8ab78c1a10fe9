"""Decodes one image: from the bytes of a file to pixels, a checksum and a perceptual hash."""

import hashlib
import io
import warnings
from typing import NamedTuple

import imagehash
import numpy as np
import pi_heif
from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow's formats that are read, by the names in messages. Other formats start programs (EPS) or do not hold
# photographs. MPO files of cameras are read as JPEG.
FORMATS = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "BMP": "BMP",
    "GIF": "GIF",
    "WebP": "WEBP",
    "TIFF": "TIFF",
    "HEIC": "HEIF",
    "AVIF": "AVIF",
    "JPEG 2000": "JPEG2000",
    "PPM": "PPM",
}
UNKNOWN_FORMAT = f"the file is not an image of a known format ({', '.join(FORMATS)})"
Image.init()  # else Pillow recognizes only some of them at first
pi_heif.register_heif_opener()
SMALLEST_SIDE = 4  # pixels; smaller images are tracking pixels of web pages
# 256 bits: with the usual 64, different chest X-rays have the same hash.
HASH_SIDE = 16


class Decoded(NamedTuple):
    """pixels: (size, size, 3) uint8.

    sha256: of the image in its original size. perceptual_hash: pHash (the signs of the low frequencies), 256 bits as 64
    hexadecimal digits; similar images differ in few bits.
    """

    pixels: np.ndarray
    sha256: str
    perceptual_hash: str


def decode(content: bytes | np.ndarray, image_size: int, resize: str = "crop") -> Decoded:
    """Decode an image: apply its EXIF orientation, convert it to RGB, make it square and resize it with antialiasing.

    content: an image file (its first frame is used), or pixels, (height, width, 3) or (height, width)
    uint8. resize: `crop` to the middle square, `pad` to a square with black, or `stretch`.

    Raises the exceptions of Pillow for unreadable files, and ValueError with the reason for other unusable images.
    """
    if isinstance(content, np.ndarray):
        return _finish(Image.fromarray(content).convert("RGB"), image_size, resize)
    if not content:
        raise ValueError("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # problems of a file are listed in quarantine.csv
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            opened = Image.open(io.BytesIO(content), formats=list(FORMATS.values()))
        except UnidentifiedImageError:  # its message has a memory address, which differs on every run
            raise ValueError(UNKNOWN_FORMAT) from None
        with opened as image:
            image.load()  # Pillow reports broken pixels only once
            if image.format == "PPM" and image.mode == "I":
                image = image.convert("I;16")  # Pillow has scaled them to 16 bits
            return _finish(_as_rgb(_upright(image)), image_size, resize)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises nearly any exception on broken EXIF data; the pixels are intact
        return image


def _finish(rgb: Image.Image, image_size: int, resize: str) -> Decoded:
    if min(rgb.size) < SMALLEST_SIDE:
        raise ValueError(
            f"the image has {rgb.width}x{rgb.height} pixels; the minimum is {SMALLEST_SIDE}x{SMALLEST_SIDE}"
        )
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
        raise ValueError("its pixels are 32-bit numbers, whose white value is unknown")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
