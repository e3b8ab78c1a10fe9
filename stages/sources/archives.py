"""Reads archives of image files without unpacking them to disk."""

import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from stages.config.datasets import ArchiveConfig, FlowersConfig, KaggleConfig
from stages.core.errors import UserError
from stages.sources.layout import locate_images, may_be_other, printable
from stages.sources.source_image import LARGEST_FILE, SourceImage, ignored_file, unusable_image

LINK = "it is a link, not a file"
# Exceptions that damaged or malicious archives have raised.
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    RuntimeError,
    OverflowError,
)


class Member(NamedTuple):
    """A file of an archive. size: unpacked, in bytes. problem: why it is not an image, or empty."""

    size: int
    problem: str
    read: Callable[[], bytes]


def archive_images(dataset: ArchiveConfig | FlowersConfig | KaggleConfig, path: Path) -> Iterator[SourceImage]:
    """The images of a zip or tar archive.

    A zip is read in the order of its names, a tar in its own order, because compressed tars allow no random access.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield from _images(dataset, path, *_zip_members(archive))
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                yield from _images(dataset, path, *_tar_members(archive))
        else:
            raise UserError(f"{str(path)!r} is neither a zip nor a tar archive. Give one of them.")
    except DAMAGE as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> UserError:
    """The error for an unreadable archive."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{str(path)!r} is damaged ({reason}). Give a complete archive.")


def _zip_members(archive: zipfile.ZipFile) -> tuple[dict[str, Member], list[str]]:
    infos = {info.filename: info for info in archive.infolist()}
    members = {
        name: Member(
            infos[name].file_size,
            LINK if stat.S_ISLNK(infos[name].external_attr >> 16) else "",
            lambda name=name: archive.read(name),
        )
        for name in sorted(infos)
        if not infos[name].is_dir()
    }
    return members, [name for name, info in infos.items() if info.is_dir()]


def _tar_members(archive: tarfile.TarFile) -> tuple[dict[str, Member], list[str]]:
    infos = {info.name: info for info in archive}
    members = {
        name: Member(
            info.size,
            LINK if info.issym() or info.islnk() else "" if info.isfile() else "it is not a file",
            lambda info=info: archive.extractfile(info).read(),
        )
        for name, info in sorted(infos.items(), key=lambda item: item[1].offset)
        if not info.isdir()
    }
    return members, [name for name, info in infos.items() if info.isdir()]


def _images(
    dataset: ArchiveConfig | FlowersConfig | KaggleConfig, path: Path, members: dict[str, Member], folders: list[str]
) -> Iterator[SourceImage]:
    locations = locate_images(members, folders, dataset.subfolder, repr(str(path)))
    classes = {location.label for name, location in locations.items() if not may_be_other(name)} - {""}
    for name, location in locations.items():
        member, text, is_optional = members[name], printable(name), may_be_other(name)
        if location.unlabeled:
            yield ignored_file(text, location.label, location.unlabeled)
        elif is_optional and classes and location.label not in classes:  # a user cannot remove it from the archive
            yield ignored_file(text, "", f"folder {location.label!r} has no images")
        elif problem := location.problem or member.problem:
            yield unusable_image(text, location.label, problem)
        elif member.size > LARGEST_FILE:
            excluded = ignored_file if is_optional else unusable_image
            yield excluded(text, location.label, f"it unpacks to {member.size:,} bytes, more than {LARGEST_FILE:,}")
        else:
            yield SourceImage(text, location.label, member.read, location.split, is_optional=is_optional)
