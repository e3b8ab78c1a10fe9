"""Archives of image files, read where they lie: nothing is unpacked to disk."""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from stages.base.errors import UserError
from stages.sources.image import SourceImage, left_out
from stages.sources.layout import places, printable
from stages.study.schema import Archive, Flowers, Kaggle

# A file larger than this is no photograph: it is not read.
LARGEST_FILE = 200 * 2**20
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, lzma.LZMAError, zlib.error)


class Member(NamedTuple):
    """A file of an archive: its size unpacked in bytes, whether it is a link, and how to read it."""

    size: int
    is_link: bool
    read: Callable[[], bytes]


def archive_images(dataset: Archive | Flowers | Kaggle, path: Path) -> Iterator[SourceImage]:
    """The images of a zip or tar archive.

    A zip is read in the order of its names, a tar in its own order: to go back in a compressed tar is to start again.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield from _images(dataset, path, *_zip_members(archive))
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                yield from _images(dataset, path, *_tar_members(archive))
        else:
            raise UserError(f"{str(path)!r} is neither a zip nor a tar archive; give one that is.")
    except DAMAGE as error:
        raise UserError(f"{str(path)!r} is damaged ({error}); give a whole archive.") from None


def _zip_members(archive: zipfile.ZipFile) -> tuple[dict[str, Member], list[str]]:
    infos = {info.filename: info for info in archive.infolist()}
    members = {
        name: Member(
            infos[name].file_size,
            stat.S_ISLNK(infos[name].external_attr >> 16),
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
            info.issym() or info.islnk(),
            lambda info=info: archive.extractfile(info).read(),
        )
        for name, info in sorted(infos.items(), key=lambda item: item[1].offset)
        if info.isfile() or info.issym() or info.islnk()
    }
    return members, [name for name, info in infos.items() if info.isdir()]


def _images(
    dataset: Archive | Flowers | Kaggle, path: Path, members: dict[str, Member], folders: list[str]
) -> Iterator[SourceImage]:
    for name, place in places(members, folders, dataset.subfolder, repr(str(path))).items():
        member, text = members[name], printable(name)
        if place.problem:
            yield left_out(text, place.label, place.problem)
        elif member.is_link:
            yield left_out(text, place.label, "it is a link, no file")
        elif member.size > LARGEST_FILE:
            yield left_out(text, place.label, f"it unpacks to {member.size:,} bytes, more than {LARGEST_FILE:,}")
        else:
            yield SourceImage(text, place.label, member.read, place.split)
