"""What several tests need: images as the bytes of their files, and archives of them."""

import io
import tarfile
import zipfile

import numpy as np
from hypothesis import settings
from PIL import Image

# A busy machine is no failure.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")


def encode(pixels, form="PNG", **options):
    """The bytes of an image file with these pixels."""
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, form, **options)
    return file.getvalue()


def png(pixels):
    return encode(pixels)


def plain(colour, side=8):
    """A picture of one colour, (side, side, 3) uint8."""
    return np.full((side, side, 3), colour, np.uint8)


def write_archive(path, files):
    """Write a zip or a tar of `files` (name -> bytes), whichever the end of the path says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, f"w:{path.suffix[1:].removesuffix('tar')}") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path
