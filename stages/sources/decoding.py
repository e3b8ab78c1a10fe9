"""Decodes one image: from the bytes of a file to pixels, a checksum and a perceptual hash."""

import hashlib
import io
import warnings
from typing import NamedTuple

import imagehash
import numpy as np
import pi_heif
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from stages.sources.source_image import NotAnImage

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
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the start of its files, in two byte orders and two versions
UNREAD_TIFF = (
    "it is a damaged TIFF file, or one of a kind that is not read, such as of signed, 10-bit or half-precision numbers "
    "or of 16-bit gray with transparency"
)
Image.init()  # else Pillow recognizes only some of them at first
pi_heif.register_heif_opener()
SMALLEST_SIDE = 4  # pixels; smaller images are tracking pixels of web pages
# Bytes of a color profile or of a text in a PNG file. Pillow's limit of 1 MiB refuses files with long descriptions.
PngImagePlugin.MAX_TEXT_CHUNK = 16 * 2**20
PNG, METADATA = b"\x89PNG\r\n\x1a\n", (b"iCCP", b"tEXt", b"zTXt", b"iTXt")  # the start and some chunks of PNG files
# Gray with 0 as white, which Pillow reads in fewer variants than gray with 0 as black.
TiffImagePlugin.OPEN_INFO |= {
    (b"MM", 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
    (b"II", 0, (1,), 1, (12,), ()): ("I;16", "I;12"),
}
PHOTOMETRIC, BITS_PER_SAMPLE, SAMPLE_FORMAT = 262, 258, 339  # tags of TIFF
WHITE_IS_ZERO, SIGNED = 0, (2,)
# 256 bits: with the usual 64, different chest X-rays have the same hash.
HASH_SIDE = 16


class Decoded(NamedTuple):
    """pixels: (size, size, 3) uint8.

    sha256: of the image in its original size and depth. perceptual_hash: pHash (the signs of the low frequencies), 256
    bits as 64 hexadecimal digits; similar images differ in few bits. largest: of a 16-bit image, its largest stored
    value; of color images, to the next multiple of 256. has_deep_color: whether it has colors (or gray and
    transparency) of 16 bits.
    """

    pixels: np.ndarray
    sha256: str
    perceptual_hash: str
    largest: int | None = None
    has_deep_color: bool = False


def decode(content: bytes | np.ndarray, image_size: int, resize: str = "crop", bits: int | None = None) -> Decoded:
    """Decode an image: apply its EXIF orientation, convert it to RGB, make it square and resize it with antialiasing.

    content: an image file (its first frame is used), or pixels, (height, width, 3) or (height, width)
    uint8. resize: `crop` to the middle square, `pad` to a square with black, or `stretch`. bits: how many bits the
    values of 16-bit gray images use; None for all.

    Raises the exceptions of Pillow for unreadable files, and ValueError with the reason for other unusable images.
    """
    if isinstance(content, np.ndarray):
        return _finish(Image.fromarray(content).convert("RGB"), image_size, resize)
    if not content:
        raise NotAnImage("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # problems of a file are listed in quarantine.csv
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return _decode(content, image_size, resize, bits)
        except Exception:  # Pillow also raises it for too large or damaged texts around intact pixels
            pixels = _without_metadata(content) if content.startswith(PNG) else content
            if pixels == content:
                raise
            return _decode(pixels, image_size, resize, bits)


def _decode(content: bytes, image_size: int, resize: str, bits: int | None) -> Decoded:
    try:
        opened = Image.open(io.BytesIO(content), formats=list(FORMATS.values()))
    except UnidentifiedImageError:  # its message has a memory address, which differs on every run
        if content.startswith(TIFF):
            raise ValueError(UNREAD_TIFF) from None
        raise NotAnImage(UNKNOWN_FORMAT) from None
    with opened as image:
        all_tags = getattr(image, "tag_v2", {})  # others may be damaged
        tags = {tag: all_tags[tag] for tag in (PHOTOMETRIC, BITS_PER_SAMPLE, SAMPLE_FORMAT) if tag in all_tags}
        if tags.get(SAMPLE_FORMAT, ())[:1] == SIGNED and (stored_bits := tags.get(BITS_PER_SAMPLE, (1,))[0]) < 32:
            raise ValueError(f"its pixels are signed {stored_bits}-bit numbers, whose black and white are unknown")
        has_deep_color = ";16" in str(image.tile) and not image.mode.startswith("I;16")
        image.load()  # Pillow reports broken pixels only once
        upright = _upright(image)
        if image.format == "PPM" and image.mode == "I":
            upright = upright.convert("I;16")  # Pillow has scaled them to 16 bits
    if upright.mode.startswith("I;16"):
        exact, shallow, largest = _deep_gray(np.asarray(upright), tags, bits)
        return _finish(shallow.convert("RGB"), image_size, resize, exact.tobytes())._replace(largest=largest)
    rgb = _as_rgb(upright)
    if not has_deep_color:
        return _finish(rgb, image_size, resize)
    if bits not in (None, 16):
        raise ValueError("it has 16-bit colors, of which only the upper 8 bits are read; convert it to 8-bit colors")
    # Without transparency, which would make dark images white.
    largest = 256 * max(high for _, high in upright.convert("RGB").getextrema()) + 255
    return _finish(rgb, image_size, resize)._replace(largest=largest, has_deep_color=True)


def _deep_gray(stored: np.ndarray, tags: dict, bits: int | None) -> tuple[np.ndarray, Image.Image, int | None]:
    """A gray image of up to 16 bits, (height, width) uint16, for its checksum; its upper eight bits; its largest value.

    In both images black is the smallest value.
    stored: (height, width), 16-bit numbers. tags: of a TIFF file. The largest value is None if the file says its depth.
    """
    stored_bits = tags.get(BITS_PER_SAMPLE, (16,))[0]
    bits = stored_bits if stored_bits < 16 else bits or 16
    white, largest = 2**bits - 1, int(stored.max())
    if largest > white:
        raise ValueError(f"its values reach {largest:,}, more than the {white:,} of {bits} bits")
    gray = exact = stored.astype("<u2")
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        gray, exact = white - gray, 2**stored_bits - 1 - exact  # the checksum must not depend on the setting `bits`
    return exact, Image.fromarray((gray >> (bits - 8)).astype(np.uint8)), largest if stored_bits == 16 else None


def _without_metadata(png: bytes) -> bytes:
    """A PNG file without its color profile and its texts."""
    kept, position = [png[:8]], 8
    while position < len(png):
        chunk = png[position : position + 12 + int.from_bytes(png[position : position + 4], "big")]
        if chunk[4:8] not in METADATA:
            kept.append(chunk)
        position += len(chunk)
    return b"".join(kept)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises nearly any exception on broken EXIF data; the pixels are intact
        return image


def _finish(rgb: Image.Image, image_size: int, resize: str, stored: bytes = b"") -> Decoded:
    """The image in its final size. stored: its pixels before the conversion to RGB, if that has reduced them."""
    if min(rgb.size) < SMALLEST_SIDE:
        raise ValueError(
            f"the image has {rgb.width}x{rgb.height} pixels; the minimum is {SMALLEST_SIDE}x{SMALLEST_SIDE}"
        )
    sha256 = hashlib.sha256(f"{rgb.width}x{rgb.height}".encode() + (stored or rgb.tobytes())).hexdigest()
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
    """8-bit RGB; transparent parts become white."""
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers, whose white value is unknown")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
