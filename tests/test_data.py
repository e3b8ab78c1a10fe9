"""Sources of images, and the arrays that `prepare` writes."""

import base64
import contextlib
import csv
import hashlib
import io
import json
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from stages import download, predict, prepare
from stages.artifacts.images import read_images
from stages.config.datasets import (
    CIFAR10_CLASSES,
    ArchiveConfig,
    Cifar10Config,
    CsvConfig,
    DigitsConfig,
    FolderConfig,
    LocalConfig,
)
from stages.core.errors import UserError
from stages.core.files import sha256_of
from stages.core.params import Params
from stages.core.wording import counted
from stages.sources import archives, arrays, folders, listed_files, workers, writing
from stages.sources.decoding import SMALLEST_SIDE, UNKNOWN_FORMAT, UNREAD_TIFF, decode
from stages.sources.folders import unlabeled_images
from stages.sources.source_image import SourceImage, unusable_image
from stages.sources.writing import write_images
from stages.splitting.near_duplicates import NEAR_BITS
from tests.conftest import encode, plain, png, png_of_size, write_archive, write_tree
from tests.example_results import model_record

ROOT = Path(__file__).parents[1]
FLOWERS = ROOT.parent / "shared" / "data" / "flowers_160.zip"
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
SHAPES = ["zip", "tar.gz", "folder"]
FINGERPRINT = {"fingerprint": "this source"}


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def two_processes(monkeypatch):
    """All images after the first are decoded in two worker processes."""
    monkeypatch.setattr(workers, "SECONDS_IN_PROCESS", 0)
    monkeypatch.setattr(workers, "IMAGES_PER_MESSAGE", 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)


def params_with(**datasets):
    """A study of datasets, as `params.yaml` holds it."""
    entries = {name: dataset.model_dump() for name, dataset in datasets.items()}
    local = {name for name, dataset in datasets.items() if isinstance(dataset, LocalConfig)}
    return Params(
        {
            "datasets": {name: entry for name, entry in entries.items() if name not in local},
            "folders": {name: entry for name, entry in entries.items() if name in local},
        }
    )


def archive_dataset(path, files, **settings):
    """Write an archive of `files`, and return it as a dataset of 8x8 images."""
    write_archive(Path(path), files)
    return archive_at(path, **settings)


def archive_at(path, **settings):
    return ArchiveConfig(source="archive", image_size=8, url=path, sha256=sha256_of(Path(path)), **settings)


def source_dataset(shape, files, **settings):
    """Write `files` as an archive or a folder, as `shape` says."""
    if shape != "folder":
        return archive_dataset(f"source.{shape}", files, **settings)
    return FolderConfig(source="folder", image_size=8, path=str(write_tree("source", files)), **settings)


def tar_dataset(files, *others):
    """A dataset of a tar of files, and of others: (name, kind, where it leads)."""
    with tarfile.open("source.tar", "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, kind, link_target in others:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link_target
            archive.addfile(info)
    return archive_at("source.tar", max_unreadable=0.8)


def csv_dataset(table, files, **settings):
    """A folder of files with a table of their labels, as a dataset of 8x8 images."""
    write_tree("source", files)
    Path("source/labels.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    return CsvConfig(source="csv", image_size=8, path="source", **settings)


def prepared(dataset):
    if not isinstance(dataset, FolderConfig | CsvConfig):
        download.main(params_with(d=dataset), "d")
    prepare.main(params_with(d=dataset), "d")
    return read_images("d")


def source_of(*contents):
    return [
        SourceImage(f"{number}.png", "a", lambda content=content: content) for number, content in enumerate(contents)
    ]


def quarantine():
    return read_images("d").quarantine.set_index("name")["reason"].to_dict()


def ignored():
    with Path("data/images/d/ignored.csv").open(encoding="utf-8", newline="") as table:
        return {row["name"]: row["reason"] for row in csv.DictReader(table)}


def all_files(folder="."):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def has_no_images():
    """Whether neither complete nor partial prepared images exist."""
    return not list(Path("data/images").glob("*"))


# Classes and splits from paths.

A, B = png(plain(RED)), png(plain(BLUE))


@pytest.mark.parametrize("shape", [*SHAPES, "tar.xz", "tar.bz2"])
@pytest.mark.parametrize("top", ["", "photos/", "photos/all/"])
def test_the_folder_name_is_the_class(shape, top):
    files = {
        f"{top}red/1.png": png(plain(RED)),
        f"{top}blue/1.png": png(plain(BLUE)),
        f"{top}blue/2.png": png(plain(BLUE)),
    }
    images = prepared(source_dataset(shape, files))
    assert images.classes == ["blue", "red"]
    assert sorted(zip(images.table["class"], images.table["label"], images.table["name"], strict=True)) == [
        ("blue", 0, f"{top}blue/1.png"),
        ("blue", 0, f"{top}blue/2.png"),
        ("red", 1, f"{top}red/1.png"),
    ]
    assert set(images.table["split"]) == set(images.table["group"]) == {""}
    colors = {"red": RED, "blue": BLUE}
    for row in images.table.itertuples():
        assert np.array_equal(images.pixels[row.index], plain(colors[images.classes[row.label]]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("top", ["", "photos/", "photos/all/"])
def test_a_folder_above_the_class_sets_the_split(shape, top):
    files = {f"{top}{split}/{label}/1.png": png(plain(RED)) for split in ("train", "val", "test") for label in "ab"}
    images = prepared(source_dataset(shape, files))
    assert images.classes == ["a", "b"]
    assert dict(zip(images.table["name"], images.table["split"], strict=True)) == {
        f"{top}{split}/{label}/1.png": {"val": "validation"}.get(split, split)
        for split in ("train", "val", "test")
        for label in "ab"
    }


@pytest.mark.parametrize(
    ("split", "folder_names"),
    [
        ("train", "train Train TRAIN training Training"),
        ("validation", "val Val VALID valid validation Validation"),
        ("test", "test TEST testing Testing"),
    ],
)
def test_split_folders_have_several_names_in_any_letter_case(split, folder_names):
    for folder in folder_names.split():
        images = prepared(source_dataset("folder", {f"{folder}/a/1.png": png(plain(RED)), "b/1.png": png(plain(RED))}))
        beside = {} if split == "train" else {"b": ""}
        assert dict(zip(images.table["class"], images.table["split"], strict=True)) == {"a": split, **beside}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_class_in_a_split_folder_may_have_the_name_of_a_split(shape):
    """CIFAR-100 and VOC have a class of trains."""
    files = {f"{split}/{label}/1.png": png(plain(RED)) for split in ("train", "test") for label in ("bus", "train")}
    images = prepared(source_dataset(shape, files, max_unreadable=0.9))
    assert images.classes == ["bus", "train"]
    assert dict(zip(images.table["name"], images.table["split"], strict=True)) == {
        name: name.split("/")[0] for name in files
    }


def test_a_class_may_have_the_name_of_a_split():
    images = prepared(source_dataset("folder", {"bus/1.png": png(plain(RED)), "train/1.png": png(plain(RED))}))
    assert images.classes == ["bus", "train"]
    assert set(images.table["split"]) == {""}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["test", "Test", "val", "validation"])
def test_a_split_folder_beside_class_folders_is_an_error(shape, name):
    with pytest.raises(UserError) as error:
        prepared(source_dataset(shape, dict.fromkeys(["cat/1.png", "dog/1.png", f"{name}/1.png"], png(plain(RED)))))
    assert str(error.value).partition(": ")[2] == (
        f"folder '{name}' has the name of a split, but is beside class folders such as 'cat'. Move it to another place "
        "if its images have no class, or rename it if it is a class."
    )
    assert has_no_images()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_in_a_split_without_a_class_is_ignored(shape):
    files = {"train/a/1.png": png(plain(RED)), "train/b/1.png": png(plain(RED)), "test/1.png": png(plain(RED))}
    images = prepared(source_dataset(shape, files))
    assert images.classes == ["a", "b"]
    assert quarantine() == {}
    assert ignored() == {"test/1.png": "it is in 'test' without a class folder"}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("files", "suggestion"),
    [
        (["1.png", "2.png"], ""),
        (["train/1.png", "test/1.png"], ", also in test and train"),
        (["photos/Train/1.png"], ", also in Train"),
        (["README", "a.txt"], ""),
    ],
)
def test_a_source_without_class_folders_is_an_error(shape, files, suggestion):
    with pytest.raises(UserError) as error:
        prepared(source_dataset(shape, dict.fromkeys(files, png(plain(RED)))))
    path = "source" if shape == "folder" else f"data/raw/d/source.{shape}"
    assert str(error.value) == (
        f"'{path}' has no <class>/<image> files. Put the images of each class in a folder named after "
        f"the class{suggestion}."
    )
    assert has_no_images()


@pytest.mark.parametrize("shape", SHAPES)
def test_only_images_next_to_the_class_folders_are_listed_as_ignored(shape):
    files = {
        "photos/a/1.png": png(plain(RED)),
        "photos/LICENSE.txt": b"x",
        "photos/stray.PNG": png(plain(RED)),
        "README": b"x",
        "stray.jpeg": b"x",
    }
    assert list(prepared(source_dataset(shape, files)).table["name"]) == ["photos/a/1.png"]
    reason = "it is next to the class folders, so it has no class"
    assert ignored() == {"photos/stray.PNG": reason, "stray.jpeg": reason}


@pytest.mark.parametrize(
    ("paths", "examples"),
    [
        (["a/1.png", "birds/owl/1.png"], "'a' and 'birds/owl'"),
        (["cats/2021/1.png", "dogs/2021/1.png"], "'cats/2021' and 'dogs/2021'"),
        (["train/a/1.png", "all/train/a/1.png"], "'all/train/a' and 'train/a'"),
        (["train/a/1.png", "more/b/1.png"], "'more/b' and 'train/a'"),
    ],
)
def test_class_folders_at_different_depths_are_an_error(paths, examples):
    """Otherwise years would become classes, and copies in subfolders would be read twice."""
    with pytest.raises(UserError) as error:
        prepared(source_dataset("folder", {path: png(plain(RED)) for path in paths}))
    assert str(error.value) == (
        f"'source' has class folders in different places, such as {examples}. Name the folder that holds all of them "
        "and nothing else (subfolder of an archive, path of a folder), or list the images in a table (source: csv)."
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_system_files_are_ignored(shape):
    files = {
        "a/1.png": png(plain(RED)),
        "a/.DS_Store": b"x",
        "a/._1.png": b"x",
        "a/Thumbs.db": b"x",
        "a/desktop.ini": b"x",
        ".hidden/1.png": b"x",
        "__MACOSX/a/1.png": b"x",
        "README": b"x",
    }
    images = prepared(source_dataset(shape, files))
    assert list(images.table["name"]) == ["a/1.png"]
    assert quarantine() == {}


@pytest.mark.parametrize("shape", SHAPES)
def test_macos_folder_icons_are_not_images(shape):
    """Its name ends with a carriage return."""
    images = prepared(source_dataset(shape, {"a/1.png": png(plain(RED)), "a/Icon\r": b""}, max_unreadable=0.5))
    assert list(images.table["name"]) == ["a/1.png"]
    assert set(quarantine()) <= {"a/Icon\r"}


@pytest.mark.parametrize("character", ["\n", "\r", '"', ",", "\t", "'", "\u2028"])
def test_tables_hold_names_with_any_character(character):
    files = {f"{character}/{character}.png": png(plain(RED)), f"{character}/{character}.jpg": b"text"}
    images = prepared(source_dataset("folder", files, max_unreadable=0.5))
    printed = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character, character)
    assert list(images.table["name"]) == [f"{printed}/{printed}.png"]
    assert images.classes == [printed]
    assert quarantine() == {f"{printed}/{printed}.jpg": UNKNOWN_FORMAT}


@pytest.mark.parametrize("shape", SHAPES)
def test_class_names_are_normalized_unicode(shape):
    decomposed = unicodedata.normalize("NFD", "Gänseblümchen")  # as macOS writes it
    files = {
        "花/1.png": png(plain(RED)),
        f"{decomposed}/1.png": png(plain(BLUE)),
        "Gänseblümchen/2.png": png(plain(RED)),
    }
    images = prepared(source_dataset(shape, files))
    assert images.classes == ["Gänseblümchen", "花"]
    assert len(images.table) == 3


@pytest.mark.parametrize("shape", SHAPES)
def test_class_names_such_as_na_are_kept(shape):
    images = prepared(source_dataset(shape, {"NA/null.png": png(plain(RED)), "nan/1.png": png(plain(RED))}))
    assert list(images.table["class"]) == ["NA", "nan"]
    assert images.classes == ["NA", "nan"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("empty", "printed"),
    [
        (["photos/c/"], "photos/c"),
        (["photos/train/a/1.png", "photos/train/c/"], "photos/train/c"),
        (["photos/a/more/"], "photos/a/more"),
        (["photos/c/", "photos/c/.DS_Store"], "photos/c"),
    ],
)
def test_an_empty_class_folder_is_an_error(shape, empty, printed):
    files = {"photos/a/1.png": png(plain(RED)), **dict.fromkeys(empty, b"")}
    with pytest.raises(UserError, match=rf"the class folder '{printed}' is empty. Put images in it, or remove it\.$"):
        prepared(source_dataset(shape, files))
    assert has_no_images()


# Archives.


@pytest.mark.parametrize("shape", ["zip", "tar.gz"])
def test_only_files_in_the_subfolder_are_read(shape):
    files = {
        "set/part/a/1.png": png(plain(RED)),
        "set/part/test/a/2.png": png(plain(RED)),
        "set/partial/c/1.png": b"x",
        "set/1.png": b"x",
        "d/1.png": b"x",
    }
    for subfolder in ("set/part", "set/part/", "set\\part"):
        images = prepared(source_dataset(shape, files, subfolder=subfolder))
        assert dict(zip(images.table["name"], images.table["split"], strict=True)) == {
            "set/part/a/1.png": "",
            "set/part/test/a/2.png": "test",
        }
        assert quarantine() == {}


def test_the_subfolder_may_be_a_split_folder():
    files = {"train/a/1.png": png(plain(RED)), "train/b/1.png": png(plain(RED)), "test/a/1.png": png(plain(RED))}
    images = prepared(archive_dataset("a.zip", files, subfolder="train"))
    assert list(images.table["class"]) == ["a", "b"]
    assert set(images.table["split"]) == {""}


@pytest.mark.parametrize("shape", ["zip", "tar.gz"])
def test_a_missing_subfolder_is_an_error(shape):
    with pytest.raises(UserError) as error:
        prepared(source_dataset(shape, {"photos/a/1.png": png(plain(RED))}, subfolder="Photos"))
    assert str(error.value) == f"'data/raw/d/source.{shape}' has no files in folder 'Photos'. Correct subfolder."


def test_a_zip_may_have_backslashes_in_paths():
    files = {r"photos\a\1.png": png(plain(RED)), r"photos\b\1.png": png(plain(RED)), "photos\\b\\": b""}
    images = prepared(archive_dataset("a.zip", files))
    assert list(images.table["class"]) == ["a", "b"]
    assert quarantine() == {}


@pytest.mark.parametrize("shape", ["zip", "tar"])
def test_a_path_out_of_an_archive_is_excluded(shape):
    files = {
        "a/1.png": png(plain(RED)),
        "../a/2.png": png(plain(RED)),
        "a/../../b/3.png": png(plain(RED)),
        "/a/4.png": png(plain(RED)),
    }
    prepared(source_dataset(shape, files, max_unreadable=0.9))
    assert quarantine() == dict.fromkeys(sorted(set(files) - {"a/1.png"}), "its path leads out of the source")
    assert list(read_images("d").table["name"]) == ["a/1.png"]


def test_links_in_a_tar_are_excluded():
    others = [
        ("a/out.png", tarfile.SYMTYPE, "/etc/passwd"),
        ("a/in.png", tarfile.SYMTYPE, "1.png"),
        ("a/hard.png", tarfile.LNKTYPE, "a/1.png"),
    ]
    prepared(tar_dataset({"a/1.png": png(plain(RED))}, *others))
    assert quarantine() == dict.fromkeys((name for name, *_ in others), "it is a link, not a file")


def test_links_in_a_zip_are_excluded():
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("a/1.png", png(plain(RED)))
        link = zipfile.ZipInfo("a/2.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    prepared(archive_at("a.zip", max_unreadable=0.5))
    assert quarantine() == {"a/2.png": "it is a link, not a file"}


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_in_a_tar_are_excluded(kind):
    images = prepared(tar_dataset({"a/1.png": png(plain(RED))}, ("a/2.png", kind, "")))
    assert list(images.table["name"]) == ["a/1.png"]


def test_the_last_member_of_a_duplicate_name_is_read():
    with tarfile.open("a.tar", "w") as archive:
        for color in (RED, BLUE):
            info = tarfile.TarInfo("a/1.png")
            info.size = len(content := png(plain(color)))
            archive.addfile(info, io.BytesIO(content))
    images = prepared(archive_at("a.tar"))
    assert np.array_equal(images.pixels, [plain(BLUE)])


def test_a_tar_is_read_in_its_own_order():
    """Seeking backwards in a compressed tar unpacks it from the beginning again."""
    files = {f"a/{number}.png": png(plain(number)) for number in (5, 3, 9, 1)}
    images = prepared(archive_dataset("a.tar.gz", files))
    assert list(images.table["name"]) == list(files)
    assert list(images.pixels[:, 0, 0, 0]) == [5, 3, 9, 1]


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("a.tar.gz", lambda content: content[: len(content) // 2], "is damaged"),
        ("a.tar.xz", lambda content: content[: len(content) // 2], "is damaged"),
        ("a.zip", lambda content: content.replace(b"PK\x01\x02", b"PK\x00\x00"), "is damaged"),
        ("a.zip", lambda content: content[: len(content) // 2], "is neither a zip nor a tar archive"),
        ("a.zip", lambda content: b"", "is neither a zip nor a tar archive"),
        ("a.zip", lambda content: b"<html>Not here any more</html>", "is neither a zip nor a tar archive"),
        # A newer zip version; a name that is not valid UTF-8; an empty name.
        ("a.zip", lambda content: content.replace(b"PK\x01\x02\x14\x03\x14", b"PK\x01\x02\x14\x03\x63"), "is damaged"),
        ("a.zip", lambda content: content.replace("a/é.png".encode(), b"a/\xc3\xc3.png"), "is damaged"),
        ("a.zip", lambda content: content.replace(b"x" * 9, b"\0" * 9), "is damaged"),
    ],
)
def test_a_damaged_archive_is_an_error(name, damage, sentence):
    files = {f"a/{number}.png": png(NOISE) for number in range(9)}
    write_archive(Path(name), files | {"a/é.png": png(NOISE), "x" * 9: b""})
    Path(name).write_bytes(damage(Path(name).read_bytes()))
    with pytest.raises(UserError, match=f"^'data/raw/d/{name}' {sentence}.*\\.$"):
        prepared(archive_at(name))
    assert has_no_images()


def test_an_archive_with_a_wrong_checksum_is_removed():
    write_archive(Path("a.zip"), {"a/1.png": png(plain(RED))})
    with pytest.raises(UserError, match="checksum mismatch"):
        prepared(ArchiveConfig(source="archive", image_size=8, url="a.zip", sha256="0" * 64))
    assert not any(path.is_file() for path in Path("data/raw").rglob("*"))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_too_large_for_an_image_is_not_read(shape, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_FILE", 1000)
    monkeypatch.setattr(folders, "LARGEST_FILE", 1000)
    prepared(source_dataset(shape, {"a/1.png": png(plain(RED)), "a/2.png": bytes(1001)}, max_unreadable=0.5))
    assert quarantine() == {
        "a/2.png": f"it {'has' if shape == 'folder' else 'unpacks to'} 1,001 bytes, more than 1,000"
    }


def test_a_damaged_zip_member_is_excluded():
    files = {"a/1.png": png(plain(RED)), "a/2.png": b"these bytes change"}
    write_archive(Path("a.zip"), files)
    Path("a.zip").write_bytes(Path("a.zip").read_bytes().replace(b"bytes change", b"bytes CHANGE"))
    prepared(archive_at("a.zip", max_unreadable=0.5))
    assert "Bad CRC-32" in quarantine()["a/2.png"]


def test_names_that_are_not_utf8_are_escaped():
    with tarfile.open("old.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name in ("käfer/1.png", "wespe/1.png"):
            info = tarfile.TarInfo(name)
            info.size = len(content := png(plain(RED)))
            archive.addfile(info, io.BytesIO(content))
    assert prepared(archive_at("old.tar")).classes == ["k\\xe4fer", "wespe"]


@pytest.mark.parametrize("files", [[], ["a.zip", "b.zip"]])
def test_the_raw_folder_must_have_one_file(files):
    write_tree("data/raw/d", {name: b"x" for name in files} | {".partial-a.zip": b"x"})
    with pytest.raises(UserError) as error:
        prepare.main(params_with(d=archive_dataset("a.zip", {"a/1.png": b""})), "d")
    assert str(error.value) == f"data/raw/d has {len(files)} files instead of one. Delete it and run `dvc repro`."


def test_an_archive_name_may_start_with_a_dot():
    assert prepared(archive_dataset(".a.zip", {"a/1.png": png(plain(RED))})).classes == ["a"]


# Folders.


@pytest.mark.parametrize("shape", ["zip", "tar.gz"])
def test_a_folder_and_an_archive_give_equal_bytes(shape):
    files = {
        f"{top}/{label}/{number}.png": png(plain(number))
        for top in ("test", "train")
        for label in "ab"
        for number in (1, 2)
    }
    files = dict(sorted((files | {"train/a/broken.jpg": b"text", "stray.jpg": b"", "README": b"x"}).items()))
    prepared(source_dataset(shape, files, max_unreadable=0.5))
    archive_files = all_files("data/images/d")
    prepared(source_dataset("folder", files, max_unreadable=0.5))
    assert all_files("data/images/d") == archive_files


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_moving_a_folder_does_not_change_the_result(kind):
    def dataset(path):
        keys = {"source": kind, "image_size": 8, "max_unreadable": 0.8}
        return FolderConfig(path=path, **keys) if kind == "folder" else CsvConfig(path=path, **keys)

    table = b"path,label\na/1.png,a\nb/2.png,b\nb/text.png,b\nb/out.png,b\nb/gone.png,b\nb/round.png,b\n"
    write_tree(
        "here", {"a/1.png": png(plain(RED)), "b/2.png": png(plain(BLUE)), "b/text.png": b"text", "labels.csv": table}
    )
    Path("here/b/out.png").symlink_to("/etc/passwd")
    Path("here/b/gone.png").symlink_to("nowhere")
    Path("here/b/round.png").symlink_to("round.png")
    prepared(dataset("here"))
    before = all_files("data/images/d")
    Path("elsewhere").mkdir()
    Path("here").rename("elsewhere/photos")
    for path in ("elsewhere/photos", str(Path("elsewhere/photos").resolve())):
        prepared(dataset(path))
        assert all_files("data/images/d") == before


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("folder", "folder 'source' does not exist. Correct `path`, or put the images there."),
        ("csv", "table 'source/labels.csv' does not exist. Correct `path` or `table`."),
    ],
)
@pytest.mark.parametrize("existing", ["nothing", "file"])
def test_a_missing_folder_is_an_error(kind, sentence, existing):
    dataset = (FolderConfig if kind == "folder" else CsvConfig)(source=kind, path="source", image_size=8)
    if existing == "file":
        Path("source").write_bytes(b"x")
        sentence = sentence if kind == "folder" else "'source/labels.csv' cannot be read as a table"
    with pytest.raises(UserError) as error:
        prepared(dataset)
    assert str(error.value).startswith(sentence)


def test_a_link_to_a_class_folder_is_an_error():
    dataset = source_dataset("folder", {"a/1.png": png(plain(RED))})
    write_tree("elsewhere", {"1.png": png(plain(RED))})
    Path("source/b").symlink_to(Path("elsewhere").resolve())
    with pytest.raises(UserError) as error:
        prepared(dataset)
    assert str(error.value) == "'source/b' is a link to a folder, which is not followed. Replace it with the folder."


def test_the_dataset_folder_may_be_a_link():
    write_tree("disk/photos", {"a/1.png": png(plain(RED))})
    Path("photos").symlink_to(Path("disk/photos").resolve())
    assert list(prepared(FolderConfig(source="folder", path="photos", image_size=8)).table["name"]) == ["a/1.png"]


def test_file_links_are_followed_only_within_the_folder():
    dataset = source_dataset("folder", {"a/1.png": png(plain(RED)), "b/1.png": png(plain(BLUE))}, max_unreadable=0.8)
    write_tree("source-2", {"1.png": png(plain(RED))})
    Path("source/b/in.png").symlink_to("../a/1.png")
    Path("source/b/out.png").symlink_to("../../source-2/1.png")
    Path("source/b/gone.png").symlink_to("nowhere.png")
    images = prepared(dataset)
    assert list(images.table["name"]) == ["a/1.png", "b/1.png", "b/in.png"]
    assert quarantine() == {
        "b/gone.png": "it cannot be read (No such file or directory)",
        "b/out.png": "it leads out of the folder",
    }


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_a_named_pipe_is_excluded_without_waiting(kind):
    files = {"a/1.png": png(plain(RED)), "b/1.png": png(plain(RED))}
    if kind == "folder":
        dataset = source_dataset("folder", files, max_unreadable=0.5)
    else:
        dataset = csv_dataset("path,label\na/1.png,a\nb/1.png,b\na/2.png,a", files, max_unreadable=0.5)
    os.mkfifo("source/a/2.png")
    prepared(dataset)
    assert quarantine() == {"a/2.png": "it is not a file"}


def test_a_file_without_read_permission_is_excluded(unprivileged):
    dataset = source_dataset("folder", {"a/1.png": png(plain(RED)), "a/2.png": png(plain(RED))}, max_unreadable=0.5)
    Path("source/a/2.png").chmod(0)
    unprivileged()
    prepared(dataset)
    assert quarantine() == {"a/2.png": "it cannot be read (Permission denied)"}


def test_a_folder_without_read_permission_is_an_error(unprivileged):
    dataset = source_dataset("folder", {"a/1.png": png(plain(RED)), "b/2.png": png(plain(RED))})
    Path("source/b").chmod(0)
    unprivileged()
    with pytest.raises(UserError) as error:
        prepared(dataset)
    assert str(error.value) == "folder 'source/b' cannot be read (Permission denied). Correct its permissions."
    Path("source/b").chmod(0o755)
    assert prepared(dataset).classes == ["a", "b"]


def test_hidden_folders_are_ignored(unprivileged):
    dataset = source_dataset("folder", {"a/1.png": png(plain(RED)), ".Trashes/1": b"x", ".git/": b""})
    Path("source/.cache").symlink_to(Path().resolve())
    Path("source/.Trashes").chmod(0)
    unprivileged()
    try:
        assert list(prepared(dataset).table["name"]) == ["a/1.png"]
    finally:
        Path("source/.Trashes").chmod(0o755)


# Tables of paths and labels.

TWO_FILES = {"1.png": png(plain(RED)), "deep/er/2.png": png(plain(BLUE))}


def test_a_table_gives_label_split_and_group():
    table = (
        "note,group,path,split,label\n"
        "x,p1,deep/er/2.png,VAL,blue thing\n"
        'y,,1.png,,"red, mostly"\n'
        "z,p2,3.png, Training ,NA\n"
        "z,p1,4.png,train,blue thing\n"
    )
    files = TWO_FILES | {"3.png": png(plain(GREEN)), "4.png": png(plain(GREEN)), "unlisted.png": b"x"}
    images = prepared(csv_dataset(table, files))
    assert images.table[["name", "class", "split", "group"]].to_numpy().tolist() == [
        ["deep/er/2.png", "blue thing", "validation", "p1"],
        ["1.png", "red, mostly", "", ""],
        ["3.png", "NA", "train", "p2"],
        ["4.png", "blue thing", "train", "p1"],
    ]
    assert np.array_equal(images.pixels, [plain(BLUE), plain(RED), plain(GREEN), plain(GREEN)])
    assert quarantine() == {}


@pytest.mark.parametrize(
    "table",
    [
        "path,label\n1.png,a\ndeep/er/2.png,b\n",
        "\ufeffpath,label\n1.png,a\ndeep/er/2.png,b\n",
        "path,label\r\n1.png,a\r\ndeep/er/2.png,b",
        "path, label\n1.png, a\ndeep/er/2.png, b\n",
        "path,label \n1.png,a \ndeep/er/2.png ,b\n",
        '"path","label"\n"1.png","a"\n"deep/er/2.png","b"\n',
        "path,label\n\n1.png,a\n\ndeep/er/2.png,b\n\n",
        "path,label,\n1.png,a,\ndeep/er/2.png,b,\n",
    ],
    ids=["plain", "BOM", "Windows", "spaces before", "spaces after", "quotes", "empty lines", "commas"],
)
def test_common_csv_variants_are_read(table):
    images = prepared(csv_dataset(table, TWO_FILES))
    assert list(images.table["name"]) == list(TWO_FILES)
    assert images.classes == ["a", "b"]


def test_a_table_cell_may_have_two_lines():
    images = prepared(csv_dataset('path,label,group\n1.png,"a\rb","p\r1"\ndeep/er/2.png,"c\nd","p\n2"\n', TWO_FILES))
    assert list(images.table["name"]) == list(TWO_FILES)
    assert images.table["class"].nunique() == images.table["group"].nunique() == 2


def test_table_labels_are_normalized_unicode():
    """Like folder names, so that the study can refer to them."""
    decomposed = unicodedata.normalize("NFD", "Gänseblümchen")
    images = prepared(csv_dataset(f"path,label\n1.png,{decomposed}\ndeep/er/2.png,Gänseblümchen\n", TWO_FILES))
    assert images.classes == ["Gänseblümchen"]


def test_the_table_name_is_a_setting():
    write_tree("source", TWO_FILES | {"my.csv": b"path,label\n1.png,007\n"})
    images = prepared(CsvConfig(source="csv", image_size=8, path="source", table="my.csv"))
    assert images.classes == ["007"]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            "file,label\n1.png,a",
            "'source/labels.csv' has no column 'path'. Columns: file, label. The first line must name "
            "the columns: path, label and optionally split and group.",
        ),
        (
            "path,lable\n1.png,a",
            "'source/labels.csv' has no column 'label' (did you mean 'lable'?). Columns: path, lable. The first line "
            "must name the columns: path, label and optionally split and group.",
        ),
        ("path,label\n1.png,a\n,b", "'source/labels.csv', line 3: path is empty. Fill it in."),
        ('path,label\n1.png,a\n2.png,"  "', "'source/labels.csv', line 3: label is empty. Fill it in."),
        ("path,label\n1.png,a\n2.png", "'source/labels.csv', line 3: label is empty. Fill it in."),
        (
            "path,label\n1.png,a\n2.png,a\n1.png,b",
            "'source/labels.csv', line 4: '1.png' is listed twice. Remove one of the lines.",
        ),
        ("path,label\n\n1.png,a\n\n2.png,", "'source/labels.csv', line 5: label is empty. Fill it in."),
        ("sep=;\npath;label\n1.png;a\n2.png;", "'source/labels.csv', line 4: label is empty. Fill it in."),
        (
            'path,label\n1.png,a\n"2.png,b',
            "'source/labels.csv' cannot be read as a table (unexpected end of data, in or before line 3). Close each "
            "quote, and write a quote inside of quotes twice.",
        ),
        (
            'sep=,\npath,label\n1.png,"a" b\n',
            "'source/labels.csv' cannot be read as a table (',' expected after '\"', in or before line 3). Close each "
            "quote, and write a quote inside of quotes twice.",
        ),
        (
            "path,label\n1.png,käfer".encode("latin-1"),
            "'source/labels.csv' cannot be read as a table ('utf-8' codec can't decode byte 0xe4 in position 18: "
            "invalid continuation byte). Save it as UTF-8 text.",
        ),
        (
            "path,label,split\n1.png,a,train\n2.png,b,dev",
            "'source/labels.csv', line 3: 'dev' is not a split. Give train, training, val, valid, validation, test, "
            "testing, or leave it empty.",
        ),
    ],
)
def test_a_table_error_names_the_line(table, sentence):
    with pytest.raises(UserError) as error:
        prepared(csv_dataset(table, TWO_FILES))
    assert str(error.value) == sentence
    assert has_no_images()


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"path,label\n\xff\xfe,a",
        b'path,label\n"1.png,a',
        b"path,label\n1.png,a\n2.png,a,b,c",
        b"path,label\n1.png,a,\n2.png,b,\n",
    ],
    ids=["empty", "no UTF-8", "open quote", "long row", "all rows long"],
)
def test_an_unreadable_table_is_an_error(table):
    with pytest.raises(UserError, match=r"(?s)^'source/labels\.csv'.* .+\. .+\.$"):
        prepared(csv_dataset(table, TWO_FILES))


def test_a_table_without_rows_is_an_error():
    with pytest.raises(UserError, match=r"^'source/labels\.csv'"):
        prepared(csv_dataset("path,label\n", TWO_FILES))


@pytest.mark.parametrize(
    ("rows", "unlabeled"),
    [
        (["u.png,unknown,test"], {"u.png"}),
        (["u.png,,test", "v.png,,Val", "2.png,b,test"], {"u.png", "v.png"}),
        (["u.png,unknown,validation", "missing.png,unknown,test", "2.png,b,test"], {"u.png", "missing.png"}),
        (["u.png,?,test", "v.png,a,test"], {"u.png"}),
    ],
)
def test_rows_without_a_class_of_the_training_images_are_ignored(rows, unlabeled):
    files = {"1.png": A, "2.png": B, "3.png": B, "u.png": A, "v.png": A}
    table = "\n".join(["path,label,split", "1.png,a,train", "3.png,b,", *rows])
    images = prepared(csv_dataset(table, files, max_unreadable=0.0))
    assert images.classes == ["a", "b"]
    assert set(ignored()) == unlabeled
    assert len(images.table) == 2 + len(rows) - len(unlabeled)


def test_a_row_of_a_split_with_nearly_the_name_of_a_class_is_an_error():
    table = "path,label,split\n1.png,cat,train\n2.png,dog,train\n3.png,Cats,test\n4.png,Cats,test\n"
    with pytest.raises(UserError) as error:
        prepared(csv_dataset(table, TWO_FILES))
    assert str(error.value).startswith(
        "'source/labels.csv', line 4: class 'Cats' has no training images (did you mean 'cat'?). Rename it as its class"
    )


def test_unreadable_files_of_a_table_are_excluded():
    Path("secret.png").write_bytes(png(plain(RED)))
    outside = str(Path("secret.png").resolve())
    paths = ["gone.png", "../secret.png", outside, "out.png", "deep", "deep/../../secret.png", "n" * 300]
    dataset = csv_dataset(
        "path,label\n" + "".join(f"{path},a\n" for path in [*TWO_FILES, *paths]), TWO_FILES, max_unreadable=0.9
    )
    Path("source/out.png").symlink_to(outside)
    assert list(prepared(dataset).table["name"]) == list(TWO_FILES)
    out = "it leads out of the folder"
    assert quarantine() == {
        "gone.png": "it does not exist (did you mean 'out.png'?)",
        "../secret.png": out,
        outside: out,
        "out.png": out,
        "deep": "it is not a file",
        "deep/../../secret.png": out,
        "n" * 300: "it does not exist",
    }


@pytest.mark.parametrize(
    ("table", "files"),
    [
        ("path;label\n1.png;a\nx/2.png;b\n", {"1.png": A, "x/2.png": B}),
        ("path\tlabel\tgroup\n1.png\ta, b\tp\nx/2.png\tb\t\n", {"1.png": A, "x/2.png": B}),
        ('"label";"path"\r\n"a";"1.png"\r\n"b; c";"x/2.png"\r\n', {"1.png": A, "x/2.png": B}),
        ("path|label\n1.png|a\nx/2.png|b", {"1.png": A, "x/2.png": B}),
        ("sep=;\npath;label\n1.png;a\nx/2.png;b\n", {"1.png": A, "x/2.png": B}),
        ('\ufeff"sep=,"\r\npath,label\r\n1.png,a\r\nx/2.png,b\r\n', {"1.png": A, "x/2.png": B}),
        ("SEP=\t\npath\tlabel\n1.png\ta\nx/2.png\tb\n", {"1.png": A, "x/2.png": B}),
        ("path,label\n.\\1.png,a\nx\\2.png,b\n", {"1.png": A, "x/2.png": B}),
        ("path;label\n1;a\nx\\2;b\n", {"1.png": A, "x/2.png": B}),
        ("path,label\nid.1,a\nx/07,b\n", {"id.1.TIF": A, "id.1.json": b"x", "x/07.jpeg": B}),
        (f"path,label\n{unicodedata.normalize('NFC', 'é/ä.png')},a\n1.png,b\n", {"e\u0301/a\u0308.png": A, "1.png": B}),
        (f"path,label\n{unicodedata.normalize('NFD', 'é/ä')},a\n1.png,b\n", {"é/ä.png": A, "1.png": B}),
        ("path,label\np07,a\n1.png,b\n", {"p07.png": A, "p07/more.png": A, "1.png": B}),
        ("path,label\nCAT/0.png,a\ndog/0.png,b\n", {"cat/0.png": A, "dog/0.png": B}),
        ("path,label\nIMG_1.JPG,a\nX\\2,b\n", {"img_1.jpg": A, "x/2.PNG": B}),
        ("path,label\nÄ/1.png,a\n2.png,b\n", {"a\u0308/1.png": A, "2.png": B}),
    ],
)
def test_the_files_of_a_table_are_found(table, files):
    images = prepared(csv_dataset(table, files))
    assert set(images.table["name"]) <= {*files, ".\\1.png"}
    assert len(images.table) == len(images.classes) == 2
    assert quarantine() == {}


@pytest.mark.parametrize("other", ["./1.png", "1", r".\1.png", "x/../1.png"])
def test_a_file_that_is_listed_in_two_ways_has_equal_content(other):
    """So the split counts its contradicting labels."""
    dataset = csv_dataset(f"path,label\n1.png,a\n{other},b\n", {"1.png": A, "x/2.png": B})
    images = prepared(dataset)
    assert list(images.table["class"]) == ["a", "b"]
    assert images.table["sha256"].nunique() == 1


@pytest.mark.parametrize(
    ("path", "files", "problem"),
    [
        ("cat/01.png", ["cat/1.png"], "it does not exist (did you mean 'cat/1.png'?)"),
        ("my_images/cat/1.png", ["cat/1.png", "cat/11.png"], "it does not exist (did you mean 'cat/1.png'?)"),
        ("7.jpg", ["x/7.png", "8.jpg"], "it does not exist (did you mean 'x/7.png'?)"),
        ("CAT/0.png", ["cat/0.jpg", "dog/0.png", "Cat/0.gif"], "it does not exist (did you mean 'cat/0.jpg'?)"),
        ("CAT/00.png", ["cat/0.png", "dog/0.png"], "it does not exist (did you mean 'cat/0.png'?)"),
        ("CAT/0.png", ["cat/more/0.png", "dog/0.png"], "it does not exist (did you mean 'cat/more/0.png'?)"),
        ("ÄRA/0.PNG", ["a\u0308ra/x/0.png", "cat/0.png"], "it does not exist (did you mean 'a\u0308ra/x/0.png'?)"),
        ("IMG_1.JPG", ["img_1.jpg", "Img_1.jpg"], "it could be any of Img_1.jpg, img_1.jpg"),
        ("7", ["7.png", "7.jpg"], "it could be any of 7.jpg, 7.png"),
        ("unlike", ["x/7.png"], "it does not exist"),
        ("x", ["x/7.png"], "it is not a file"),
    ],
)
def test_a_listed_file_that_is_missing_has_its_own_error(path, files, problem):
    dataset = csv_dataset(f"path,label\n1.png,a\n\n{path},b\n", dict.fromkeys(["1.png", *files], A))
    with pytest.raises(UserError) as error:
        prepared(dataset)
    assert str(error.value) == (
        f"'source/labels.csv' lists 1 of 2 paths without a file in 'source' (line 4, {path!r}: {problem}). Correct the "
        "paths, or remove these lines."
    )
    assert has_no_images()
    with pytest.raises(UserError, match="class 'b' has no readable image"):
        prepared(dataset.model_copy(update={"max_unreadable": 0.5}))


def test_a_suggestion_compares_a_bounded_number_of_files_first_those_of_the_same_folder(monkeypatch):
    compared = []
    monkeypatch.setattr(listed_files, "MOST_CANDIDATES", 3)
    monkeypatch.setattr(listed_files, "get_close_matches", lambda _, files, **__: compared.append(files) or [])
    write_tree("source", dict.fromkeys(["a/1.png", "a/2.png", "b/3.png", "z/4.png"], A))
    _, problems = listed_files.locate_files(Path("source"), ["z/5.png"])
    assert problems == {"z/5.png": "it does not exist"}
    assert compared == [["z/4.png", "a/1.png", "a/2.png"]]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "others",
    [
        {"a/1.json": b"{}", "b/1.json": b""},
        {"a/1.png.xml": b"<x/>", "a/1.txt": b"cat", "b/notes.md": b"x", "b/index.html": b"<html>"},
        {"a/1.npy": b"\x93NUMPY", "b/1.xmp": b"x", "b/x.db": bytes(200)},
        {"train/a/1.png": A, "train/b/1.png": B, "train/b/1.json": b"{}", "test/1.png": A, "test/unknown/2.png": A},
        {"train/a/1.png": A, "train/b/1.png": B, "test/unknown/1.png": A, "val/b/1.png": A, "test/unknown/1.json": b""},
        {"a/1.png": A, "b/1.png": B, "test/a/2.png": A, "test/none/1.png": A, "valid/2.png": A},
        {"train/a/1.png": A, "train/b/1.png": B, "test/a/2.png": A, "unlabeled/1.png": A},
        {"train/a/1.png": A, "train/b/1.png": B, "extra/1.png": A, "more/1.png": A, "extra/2.json": b"{}"},
        {"Training/a/1.png": A, "Training/b/1.png": B, "val/b/1.png": B, "c/1.png": A},
        {"a/README": b"x", "b/LICENSE": b"x", "b/Changelog": b"x"},
        {"a/1.cr2": b"II*\0raw", "b/1.DNG": encode(NOISE, "TIFF"), "b/1.svg": b"<svg/>"},
        {"train/a/7.jpeg": A, "train/a/7.NEF": b"MM\0*raw", "train/b/notice": b"x", "train/b/1.png": B},
        {"a/annotations/1.xml": b"<x/>", "b/annotations/1.xml": b"<x/>"},
        {"annotations/a/1.xml": b"<x/>", "annotations/b/1.xml": b"<x/>", "docs/manual/i.html": b"<html>"},
        {"train/a/1.png": A, "train/b/1.png": B, "train/a/masks/1.json": b"{}", "labels/train/1.txt": b"0"},
        {"train/a/1.png": A, "train/b/1.png": B, "labels/1.txt": b"0", "labels/test/a/1.txt": b"0"},
    ],
)
def test_other_files_and_unlabeled_images_do_not_count_as_unreadable(shape, others):
    has_train = any(name.startswith(("train", "Train")) for name in others)
    files = others if has_train else {"a/1.png": A, "b/1.png": B, **others}
    dataset = source_dataset(shape, files, max_unreadable=0.0)
    if shape != "folder":
        download.main(params_with(d=dataset), "d")
    line = prepare.main(params_with(d=dataset), "d")
    images = read_images("d")
    assert images.classes == ["a", "b"]
    assert quarantine() == {}
    assert {*images.table["name"], *ignored()} == set(files)
    assert images.ignored == len(ignored())
    first = next(iter(ignored().items()))
    assert line.endswith(f", {counted(images.ignored, 'other file')} ignored ({first[0]}: {first[1]})")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("trained", "tested", "problems"),
    [
        (["cat", "dog"], ["cats", "dogs"], {"test/cats": "cat", "test/dogs": "dog"}),
        (["cat", "dog"], ["Cats", "dog"], {"test/Cats": "cat"}),
        (["golden retriever", "poodle"], ["golden_retriever", "poodle"], {"test/golden_retriever": "golden retriever"}),
        (["type_1", "type_2"], ["type1", "type_2"], {"test/type1": "type_1"}),
        (["cat", "dog"], ["dog", "1_cat"], {"test/1_cat": "cat"}),
        (["1", "2"], ["1", "10"], {}),
        (["type 1", "type 2"], ["type 1", "type 21"], {}),
        (["cat", "dog"], ["unknown", "images", "test"], {}),
    ],
)
def test_a_folder_of_a_split_with_nearly_the_name_of_a_class_is_an_error(shape, trained, tested, problems):
    files = {f"train/{name}/1.png": A for name in trained} | {f"test/{name}/1.png": B for name in tested}
    dataset = source_dataset(shape, files)
    if not problems:
        assert prepared(dataset).classes == sorted(trained)
        assert set(ignored()) == {f"test/{name}/1.png" for name in tested if name not in trained}
        return
    with pytest.raises(UserError) as error:
        prepared(dataset)
    assert sorted(sentence.partition(": ")[2] for sentence in error.value.sentences) == [
        f"folder '{folder}' has no training images (did you mean '{name}'?). Rename it as its class is named for "
        "training, or take it out of the dataset if it is not a class."
        for folder, name in problems.items()
    ]
    assert has_no_images()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a/2.png", b"text"),
        ("a/2.HEIC", b"text"),
        ("a/2.svg", b"<svg/>"),
        ("a/2", b"text"),
        ("a/2.cr2", b"raw"),
        ("b/readme.png", b"text"),
        ("a/2.dat", encode(NOISE, "JPEG")[:1000]),
    ],
)
def test_a_broken_picture_counts_as_unreadable(name, content):
    with pytest.raises(UserError, match="1 of 3 files is unreadable"):
        prepared(source_dataset("folder", {"a/1.png": A, "b/1.png": B, name: content}))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_large_file_beside_the_images_is_ignored(shape, monkeypatch):
    for module in (archives, folders):
        monkeypatch.setattr(module, "LARGEST_FILE", 1000)
    prepared(source_dataset(shape, {"a/1.png": A, "b/1.png": B, "a/movie.mp4": bytes(2000)}))
    assert list(ignored()) == ["a/movie.mp4"]
    with pytest.raises(UserError, match="1 of 3 files is unreadable"):
        prepared(source_dataset(shape, {"a/1.png": A, "b/1.png": B, "a/scan.tif": bytes(2000)}))


def test_a_source_of_other_files_is_an_error():
    with pytest.raises(UserError) as error:
        prepared(source_dataset("folder", {"a/1.json": b"{}", "b/1.json": b"{}"}))
    assert str(error.value) == (
        f"d: none of 2 files is an image of a class (a/1.json: {UNKNOWN_FORMAT}). Give a folder or archive of images."
    )


def test_folders_without_images_are_named_in_one_error():
    files = {"a/1.png": A, "b/1.json": b"{}", "c/1.txt": b"x", "c/2.txt": b"x"}
    with pytest.raises(UserError) as error:
        prepared(source_dataset("folder", files))
    assert error.value.sentences == tuple(
        f"d: folder '{name[0]}' has no images, only files such as '{name}'. Move it to another place, or add images."
        for name in ("b/1.json", "c/1.txt")
    )


@pytest.mark.parametrize("shape", ["zip", "tar.gz"])
@pytest.mark.parametrize("others", [["docs/1.txt"], ["notes/1.md", "docs/i.html"], ["a/1.txt", "c/1.json", "c/2.json"]])
def test_a_folder_of_an_archive_without_images_is_ignored(shape, others):
    files = {"a/1.png": A, "b/1.png": B, **dict.fromkeys(others, b"x")}
    assert prepared(source_dataset(shape, files, max_unreadable=0.0)).classes == ["a", "b"]
    assert set(ignored()) == set(others)


@pytest.mark.parametrize(
    ("files", "problems"),
    [
        ({"b/1.png": b"text"}, ["1 of 3 files", "class 'b'"]),
        ({"b/1.png": b"", "c/1.txt": b"x"}, ["1 of 3 files", "class 'b'", "folder 'c'"]),
        ({"b/1.png": b"", "d/1.png": encode(np.full((8, 8), 900, np.uint16))}, ["1 of 4", "class 'b'", "the values"]),
        ({"c/1.txt": b"x", "a/3.png": b""}, ["1 of 3 files", "folder 'c'"]),
    ],
)
def test_unreadable_files_do_not_hide_other_problems(files, problems):
    with pytest.raises(UserError) as error:
        prepared(source_dataset("folder", {"a/1.png": A, "a/2.png": B, **files}))
    assert len(error.value.sentences) == len(problems)
    for sentence, problem in zip(error.value.sentences, problems, strict=True):
        assert sentence.startswith(f"d: {problem}")


def test_all_mistakes_of_a_table_are_reported():
    rows = ["1.png,a,", ",a,", "2.png,,dev", "1.png,b,", *[f"{number}.png,,train" for number in range(3, 20)]]
    with pytest.raises(UserError) as error:
        prepared(csv_dataset("\n".join(["path,label,split", *rows]), TWO_FILES))
    assert [sentence.removeprefix("'source/labels.csv'") for sentence in error.value.sentences[:5]] == [
        ", line 3: path is empty. Fill it in.",
        ", line 4: label is empty. Fill it in.",
        ", line 4: 'dev' is not a split. Give train, training, val, valid, validation, test, testing, or leave it "
        "empty.",
        ", line 5: '1.png' is listed twice. Remove one of the lines.",
        ", line 6: label is empty. Fill it in.",
    ]
    assert error.value.sentences[10:] == ("'source/labels.csv': 11 more lines have mistakes.",)


def test_all_empty_class_folders_are_reported():
    with pytest.raises(UserError) as error:
        prepared(source_dataset("folder", {"a/1.png": A, "b/": b"", "c/": b""}))
    assert [sentence.split("'")[3] for sentence in error.value.sentences] == ["b", "c"]


# CIFAR-10.


def cifar10_pixels(number):
    """A gradient image that reveals swapped axes and channels, (32, 32, 3) uint8."""
    rows, columns = np.mgrid[:32, :32]
    return np.stack([rows * 8, columns * 8, np.full((32, 32), number)], axis=-1).astype(np.uint8)


@pytest.fixture
def cifar10():
    """A function that writes a small CIFAR-10 archive, three images per file; `change` edits its files."""

    def write(change=lambda files: files):
        numbers = {name: range(3 * number, 3 * number + 3) for number, name in enumerate(arrays.CIFAR10_FILES)}
        files = {
            name: b"".join(
                bytes([number % 10]) + cifar10_pixels(number).transpose(2, 0, 1).tobytes() for number in numbers[name]
            )
            for name in numbers
        }
        files = {f"cifar-10-batches-bin/{name}": content for name, content in change(files).items()}
        write_archive(Path("cifar.tar.gz"), files | {"cifar-10-batches-bin/readme.html": b"x"})
        return Cifar10Config(
            source="cifar10", image_size=32, url="cifar.tar.gz", sha256=sha256_of(Path("cifar.tar.gz"))
        )

    return write


def test_cifar10_pixels_labels_and_splits_are_read(cifar10):
    images = prepared(cifar10())
    assert images.classes == CIFAR10_CLASSES
    assert list(images.table["label"]) == [number % 10 for number in range(18)]
    assert list(images.table["split"]) == ["train"] * 15 + ["test"] * 3
    assert list(images.table["name"][[0, 4, 17]]) == ["data_batch_1/0000", "data_batch_2/0001", "test_batch/0002"]
    assert np.array_equal(images.pixels, [cifar10_pixels(number) for number in range(18)])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda files: {name: files[name] for name in files if name not in ("data_batch_2.bin", "test_batch.bin")},
            " lacks data_batch_2.bin, test_batch.bin. Give CIFAR-10's binary version, cifar-10-binary.tar.gz.",
        ),
        (
            lambda files: files | {"data_batch_3.bin": files["data_batch_3.bin"][:-1]},
            ": data_batch_3.bin has 9,218 bytes, not a multiple of 3,073. Give CIFAR-10's binary version, "
            "cifar-10-binary.tar.gz.",
        ),
        (
            lambda files: files | {"data_batch_1.bin": b""},
            ": data_batch_1.bin has 0 bytes, not a multiple of 3,073. Give CIFAR-10's binary version, "
            "cifar-10-binary.tar.gz.",
        ),
        (
            lambda files: files | {"test_batch.bin": b"\x0a" + files["test_batch.bin"][1:]},
            ": test_batch.bin has the label 10, above 9. Give the published archive.",
        ),
    ],
)
def test_an_incomplete_cifar10_archive_is_an_error(change, sentence, cifar10):
    with pytest.raises(UserError) as error:
        prepared(cifar10(change))
    assert str(error.value) == f"'data/raw/d/cifar.tar.gz'{sentence}"
    assert has_no_images()


@pytest.mark.parametrize("damage", [lambda content: content[:-500], lambda content: b"<html>", lambda content: b""])
def test_a_damaged_cifar10_archive_is_an_error(damage, cifar10):
    cifar10()
    Path("cifar.tar.gz").write_bytes(damage(Path("cifar.tar.gz").read_bytes()))
    dataset = Cifar10Config(source="cifar10", image_size=32, url="cifar.tar.gz", sha256=sha256_of(Path("cifar.tar.gz")))
    with pytest.raises(UserError, match=r"^'data/raw/d/cifar\.tar\.gz' is damaged \(.*\). Give a complete archive\.$"):
        prepared(dataset)
    assert has_no_images()


# Unreadable files.


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"Dear photographer", UNKNOWN_FORMAT),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", UNKNOWN_FORMAT),  # Pillow would start a program
        (encode(NOISE, "JPEG")[:500], "Truncated File Read"),
        (encode(NOISE, "JPEG")[:1000], "image file is truncated"),
        (png(NOISE)[:500], "image file is truncated"),
        (png(NOISE)[:200] + bytes(300) + png(NOISE)[500:], "broken"),
        (png(plain(RED, 1)), "the image has 1x1 pixels; the minimum is 4x4"),
        (png(plain(RED, 32)[: SMALLEST_SIDE - 1]), "the image has 32x3 pixels; the minimum is 4x4"),
        (
            encode(np.full((8, 8), 200, np.int32), "TIFF"),
            "its pixels are 32-bit numbers, whose white value is unknown",
        ),
        (
            encode(np.ones((8, 8), np.float32), "TIFF"),
            "its pixels are 32-bit numbers, whose white value is unknown",
        ),
    ],
)
def test_an_unreadable_file_is_quarantined_with_the_reason(content, reason):
    message = write_images("d", source_of(png(plain(RED)), content, png(plain(BLUE))), 8, max_unreadable=0.5)
    assert message == "2 images of 1 class, 8x8, 1 unreadable"
    assert list(quarantine()) == ["1.png"]
    assert reason in quarantine()["1.png"]
    images = read_images("d")
    assert list(images.table["name"]) == ["0.png", "2.png"]
    assert np.array_equal(images.pixels, [plain(RED), plain(BLUE)])


@pytest.mark.parametrize("side", [10_000, 20_000])  # Pillow warns for the first size and raises for the second
def test_a_decompression_bomb_is_excluded(side):
    write_images("d", source_of(png(plain(RED)), png_of_size(side, side)), 8, max_unreadable=0.5)
    assert "decompression bomb" in quarantine()["1.png"]


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, struct.error, IndexError])
def test_any_decoder_exception_excludes_the_file(error):
    def broken():
        raise error("broken inside")

    write_images("d", [*source_of(png(plain(RED))), SourceImage("b.png", "a", broken)], 8, max_unreadable=0.5)
    assert quarantine() == {"b.png": "broken inside"}


def test_too_many_unreadable_files_are_an_error():
    contents = [png(plain(RED))] * 8 + [b"", b"text"]
    with pytest.raises(UserError) as error:
        write_images("d", source_of(*contents), 8, max_unreadable=0.1)
    assert str(error.value) == (
        "d: 2 of 10 files are unreadable, more than max_unreadable 10.0% (8.png: the file is empty; "
        f"9.png: {UNKNOWN_FORMAT}). Fix, convert or remove them, or raise max_unreadable."
    )
    assert has_no_images()
    write_images("d", source_of(*contents), 8, max_unreadable=0.2)  # exactly the share is accepted


def test_the_first_ten_unreadable_files_are_named():
    with pytest.raises(UserError) as error:
        write_images("d", source_of(png(plain(RED)), *[b""] * 30), 8, max_unreadable=0.5)
    assert str(error.value).count("the file is empty") == 10


def test_a_class_without_readable_images_is_an_error():
    source = [*source_of(*[png(plain(RED))] * 9), unusable_image("b/1.png", "b", "it is a link, not a file")]
    with pytest.raises(UserError) as error:
        write_images("d", source, 8, max_unreadable=0.5)
    assert str(error.value) == "d: class 'b' has no readable image. Fix its files, or remove the class."
    assert has_no_images()


def test_an_exception_without_a_message_is_listed_by_type():
    def broken():
        raise EOFError

    write_images("d", [*source_of(png(plain(RED))), SourceImage("b.png", "a", broken)], 8, max_unreadable=0.5)
    assert quarantine() == {"b.png": "EOFError"}


@pytest.mark.parametrize("character", ["\n", "\r", "\r\n"])
def test_a_reason_is_one_line(character):
    def broken():
        raise ValueError(f"broken{character}inside")

    source = [*source_of(png(plain(RED))), SourceImage("b.png", "a", broken)]
    write_images("d", source, 8, max_unreadable=0.5)
    assert quarantine() == {"b.png": "broken inside"}
    with pytest.raises(UserError, match=r"b\.png: broken inside\)\."):
        write_images("d", source, 8, max_unreadable=0.1)


def test_a_memory_error_is_raised_not_quarantined():
    def too_large():
        raise MemoryError

    with pytest.raises(MemoryError):
        write_images("d", [SourceImage("b.png", "a", too_large)], 8, max_unreadable=0.5)
    assert has_no_images()


def test_earlier_images_survive_an_error():
    write_images("d", source_of(png(plain(RED))), 8, 0.0)
    before = all_files()
    with pytest.raises(UserError):
        write_images("d", source_of(b"text"), 8, 0.5)
    assert all_files() == before


# Decoding.


@pytest.mark.parametrize(
    ("content", "pixel"),
    [
        (png(plain(RED)), RED),
        (encode(plain(RED), "BMP"), RED),
        (encode(plain(RED), "TIFF"), RED),
        (encode(plain(RED), "WEBP", lossless=True), RED),
        (png(plain(100)[:, :, 0]), (100, 100, 100)),
        (png(np.full((8, 8), 0x80FF, np.uint16)), (128, 128, 128)),
        (encode(np.full((8, 8), 0x80FF, np.uint16), "TIFF"), (128, 128, 128)),
        (encode(Image.new("1", (8, 8), 1)), (255, 255, 255)),
        (encode(Image.fromarray(plain(GREEN)).convert("P")), GREEN),
        (encode(Image.fromarray(plain(GREEN)).quantize(2), "GIF"), GREEN),
        (encode(Image.new("RGBA", (8, 8), (*BLUE, 255))), BLUE),
        (encode(Image.new("RGBA", (8, 8), (*BLUE, 0))), (255, 255, 255)),
        (encode(Image.new("RGBA", (8, 8), (0, 0, 0, 51))), (204, 204, 204)),
        (encode(Image.new("RGBA", (8, 8), (*BLUE, 0)), "WEBP", lossless=True), (255, 255, 255)),
        (encode(Image.new("LA", (8, 8), (0, 0))), (255, 255, 255)),
        (encode(Image.new("LA", (8, 8), (70, 255))), (70, 70, 70)),
        (encode(Image.new("P", (8, 8), 0), transparency=0), (255, 255, 255)),
        (encode(Image.new("L", (8, 8), 7), transparency=7), (255, 255, 255)),
        (encode(Image.new("RGB", (8, 8), RED), transparency=RED), (255, 255, 255)),
        (encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), RED),
    ],
    ids=[
        "RGB",
        "BMP",
        "TIFF",
        "WebP",
        "gray",
        "16-bit PNG",
        "16-bit TIFF",
        "1-bit",
        "palette",
        "GIF",
        "opaque",
        "transparent",
        "half transparent",
        "transparent WebP",
        "transparent gray",
        "opaque gray",
        "transparent palette",
        "transparent shade of gray",
        "transparent color",
        "CMYK TIFF",
    ],
)
def test_every_pixel_format_becomes_rgb(content, pixel):
    decoded = decode(content, 8).pixels
    assert (decoded.shape, decoded.dtype) == ((8, 8, 3), np.uint8)
    assert np.array_equal(decoded, plain(pixel))


def test_a_cmyk_jpeg_becomes_rgb():
    content = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert np.abs(decode(content, 8).pixels.astype(int) - RED).max() <= 3


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_the_first_frame_is_used(form):
    first, *others = (Image.fromarray(plain(color, 16)) for color in (RED, GREEN, BLUE))
    options = {"lossless": True} if form == "WEBP" else {}
    content = encode(first, form, save_all=True, append_images=others, **options)
    assert np.abs(decode(content, 8).pixels.astype(int) - RED).max() <= 3


GREEN_SQUARE = Image.new("RGB", (16, 16), (0, 250, 0))
# 64x64, the upper half red and the lower blue; tests cannot write HEIC.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVZtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAA"
    "AERAAAEAAQAAAAABegABAAAAAAAAADsAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA1mlwcnAAAAC3"
    "aXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQArQgEBA3AAAAMAkAAAAwAA"
    "AwAeoCCBBZbqSSmubgIaDAgAAAMAyAAAAwAIQGIAAQAHRAHBcrAiQAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAABBw"
    "aXhpAAAAAAMICAgAAAAXaXBtYQAAAAAAAAABAAEEgQIDBAAAAENtZGF0AAAANygBrxOAgDhTVEf//kErv/hg6f/IvlA/4P/9Gn6P7jbX/6OUUBuS"
    "AA2/7U+PBzf3esXAeF+AHlM="
)


@pytest.mark.parametrize(
    ("name", "content", "upper", "lower"),
    [
        ("a.jfif", encode(GREEN_SQUARE, "JPEG"), (0, 250, 0), (0, 250, 0)),
        ("a.mpo", encode(GREEN_SQUARE, "MPO"), (0, 250, 0), (0, 250, 0)),
        ("a.avif", encode(GREEN_SQUARE, "AVIF"), (0, 250, 0), (0, 250, 0)),
        ("a.jp2", encode(GREEN_SQUARE, "JPEG2000"), (0, 250, 0), (0, 250, 0)),
        ("a.ppm", encode(GREEN_SQUARE, "PPM"), (0, 250, 0), (0, 250, 0)),
        ("a.pgm", b"P5 8 8 65535\n" + bytes([200, 7]) * 64, (200, 200, 200), (200, 200, 200)),
        ("IMG_1.HEIC", HEIC, (250, 20, 20), (20, 20, 250)),
        ("no-suffix", HEIC, (250, 20, 20), (20, 20, 250)),
    ],
)
def test_photographs_of_cameras_and_phones_are_read(name, content, upper, lower):
    images = prepared(source_dataset("folder", {f"cat/{name}": content}))
    np.testing.assert_allclose(images.pixels[0, [1, -2], 3], [upper, lower], atol=6)  # of lossy formats


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_broken_exif_data_is_ignored(form):
    pixels = plain(RED, side=32)
    decoded = decode(encode(pixels, form, exif=b"Exif\0\0no TIFF header"), 32).pixels
    assert np.abs(decoded.astype(int) - RED).max() <= 3


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda stored: stored),
        (2, np.fliplr),
        (3, lambda stored: np.rot90(stored, 2)),
        (4, np.flipud),
        (5, lambda stored: stored.swapaxes(0, 1)),
        (6, lambda stored: np.rot90(stored, -1)),
        (7, lambda stored: np.rot90(stored, 2).swapaxes(0, 1)),
        (8, lambda stored: np.rot90(stored, 1)),
    ],
)
def test_the_exif_orientation_is_applied(orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode(encode(NOISE, exif=exif), 32).pixels, upright(NOISE))
    deep = NOISE[:, :, 0].astype(np.uint16) << 8
    assert np.array_equal(decode(encode(deep, exif=exif), 32).pixels[:, :, 0], upright(NOISE[:, :, 0]))


def test_crop_takes_the_middle_square():
    wide = np.concatenate([plain(RED), plain(GREEN), plain(BLUE)], axis=1)
    assert np.array_equal(decode(png(wide), 8).pixels, plain(GREEN))
    assert np.array_equal(decode(png(wide.swapaxes(0, 1)), 8).pixels, plain(GREEN))
    assert np.array_equal(decode(png(plain(RED, side=50)), 8).pixels, plain(RED))


def test_pad_adds_black_borders():
    wide = np.concatenate([plain(RED), plain(GREEN), plain(BLUE)], axis=1)
    black = np.zeros_like(wide)
    assert np.array_equal(decode(png(wide), 24, "pad").pixels, np.concatenate([black, wide, black]))
    tall = decode(png(wide.swapaxes(0, 1)), 24, "pad").pixels
    assert np.array_equal(tall, np.concatenate([black, wide, black]).swapaxes(0, 1))
    assert np.array_equal(decode(png(plain(RED)), 8, "pad").pixels, plain(RED))


def test_stretch_changes_the_aspect_ratio():
    wide = np.concatenate([plain(RED), plain(GREEN), plain(BLUE)], axis=1)
    assert np.array_equal(decode(png(wide), 24, "stretch").pixels, np.concatenate([wide] * 3))
    tall = decode(png(wide.swapaxes(0, 1)), 24, "stretch").pixels
    assert np.array_equal(tall, np.concatenate([wide] * 3).swapaxes(0, 1))


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("shape", [(4, 4000), (4000, 4), (4, 4), (1000, 1001)])
def test_every_shape_becomes_square(resize, shape):
    assert decode(png(np.full((*shape, 3), 9, np.uint8)), 8, resize).pixels.shape == (8, 8, 3)


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_resizing_uses_antialiasing(resize):
    """Without antialiasing it would be black and white."""
    board = np.indices((256, 256)).sum(axis=0) % 2 * 255
    small = decode(png(board.astype(np.uint8)), 16, resize).pixels
    assert np.abs(small.astype(int) - 128).max() <= 4


def test_hashes_do_not_depend_on_the_target_size():
    content = encode(NOISE, "JPEG")
    other = decode(encode(NOISE[::-1], "JPEG"), 8)
    for size, resize in ((16, "crop"), (8, "pad"), (8, "stretch")):
        assert decode(content, 8)[1:] == decode(content, size, resize)[1:]
    assert decode(content, 8).sha256 != other.sha256
    assert decode(content, 8).perceptual_hash != other.perceptual_hash


def test_the_checksum_is_computed_from_pixels():
    assert decode(png(NOISE), 8).sha256 == decode(encode(NOISE, "BMP"), 8).sha256 == decode(NOISE, 8).sha256
    assert decode(png(NOISE.reshape(64, 16, 3)), 8).sha256 != decode(png(NOISE), 8).sha256


def bit_distance(one, other):
    return (int(one.perceptual_hash, 16) ^ int(other.perceptual_hash, 16)).bit_count()


def test_the_perceptual_hash_tolerates_size_and_quality():
    coarse = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), np.uint8)
    picture, different = (Image.fromarray(pixels).resize((200, 200), Image.Resampling.BICUBIC) for pixels in coarse)
    expected = decode(encode(picture), 8)
    assert len(expected.perceptual_hash) == 64
    for same in (encode(picture.resize((90, 90))), encode(picture, "JPEG", quality=50), encode(picture.convert("L"))):
        assert decode(same, 8).sha256 != expected.sha256
        assert bit_distance(decode(same, 8), expected) <= NEAR_BITS
    assert bit_distance(decode(encode(different), 8), expected) > 2 * NEAR_BITS


# Depth of gray.

DEEP = np.arange(64).reshape(8, 8)  # 64 different values


def tiff(pixels, photometric=1, big_endian=False, sample_format=None, bits=16):
    """An uncompressed gray TIFF file. pixels: (height, width) of a NumPy type with as many bits; 12 bits are packed."""
    order = ">" if big_endian else "<"
    if bits == 12:
        data = b"".join(
            bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in np.asarray(pixels).reshape(-1, 2).tolist()
        )
    else:
        data = np.asarray(pixels).astype(np.asarray(pixels).dtype.newbyteorder(order)).tobytes()
    height, width = np.shape(pixels)
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data)}
    tags |= {} if sample_format is None else {339: sample_format}
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, 4, 1) + struct.pack(f"{order}I", value) for tag, value in tags.items()
    )
    start = (b"MM" if big_endian else b"II") + struct.pack(f"{order}HI", 42, 8 + len(data))
    return start + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "big-endian TIFF", "compressed TIFF"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16, None])
def test_bits_say_which_value_of_16_bit_gray_is_white(form, bits):
    white = 2 ** (bits or 16) - 1
    pixels = np.where(np.indices((8, 8)).sum(axis=0) % 2, white, white // 2).astype(np.uint16)
    if form == "big-endian TIFF":
        content = tiff(pixels, big_endian=True)
    else:
        content = encode(pixels, form.split()[-1], **({"compression": "tiff_lzw"} if "compressed" in form else {}))
    decoded = decode(content, 8, bits=bits)
    assert set(decoded.pixels[:, :, 0].ravel()) == {127, 255}
    assert decoded.largest == white


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(
    ("pixels", "settings", "expected"),
    [
        ((DEEP * 4).astype(np.uint8), {"bits": 8}, 255 - DEEP * 4),
        ((DEEP * 1024).astype(np.uint16), {}, 255 - DEEP * 4),
        ((DEEP * 64).astype(np.uint16), {"decode": 12}, 255 - DEEP * 4),
        (np.zeros((8, 8), np.uint16), {}, np.full((8, 8), 255)),
    ],
)
def test_gray_with_zero_as_white_is_inverted(pixels, settings, expected, big_endian):
    content = tiff(pixels, photometric=0, big_endian=big_endian, bits=settings.get("bits", 16))
    assert np.array_equal(decode(content, 8, bits=settings.get("decode")).pixels[:, :, 0], expected)


@pytest.mark.parametrize(("photometric", "expected"), [(1, DEEP * 4), (0, 255 - DEEP * 4)])
def test_a_file_of_12_bits_is_scaled_without_a_setting(photometric, expected):
    for bits in (None, 12, 16):
        decoded = decode(tiff(DEEP * 64, photometric, bits=12), 8, bits=bits)
        assert np.array_equal(decoded.pixels[:, :, 0], expected)
        assert decoded.largest is None


def test_the_checksum_of_16_bit_gray_is_that_of_all_its_bits():
    pixels = (DEEP * 1000).astype(np.uint16)
    same = [encode(pixels), encode(pixels, "TIFF"), tiff(pixels, big_endian=True), tiff(65535 - pixels, photometric=0)]
    assert len({decode(content, 8).sha256 for content in same}) == 1
    assert decode(encode(pixels), 8, bits=16).sha256 == decode(encode(pixels), 8).sha256
    other = decode(encode(pixels + 1), 8)
    assert other.sha256 != decode(encode(pixels), 8).sha256
    assert np.array_equal(other.pixels, decode(encode(pixels), 8).pixels)


@pytest.mark.parametrize(
    "content",
    [
        tiff(DEEP.astype(np.int16), photometric=0, sample_format=2),
        tiff(DEEP.astype(np.float16), sample_format=3, big_endian=True),
        tiff(DEEP.astype(np.uint16), bits=10),
        tiff(DEEP.astype(np.uint16)).replace(struct.pack("<HHII", 277, 4, 1, 1), struct.pack("<HHII", 277, 4, 1, 2)),
        b"MM\0+\0\x08\0\0" + bytes(40),
    ],
    ids=["signed", "half precision", "10 bits", "with alpha", "damaged"],
)
def test_a_tiff_of_a_kind_that_is_not_read_is_said_to_be_one(content):
    write_images("d", source_of(png(plain(RED)), content), 8, max_unreadable=0.5)
    assert quarantine() == {"1.png": UNREAD_TIFF}


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("big_endian", [False, True])
def test_the_checksum_does_not_depend_on_the_setting_bits(photometric, big_endian):
    """Else the setting would draw another split."""
    content = tiff((DEEP * 16).astype(np.uint16), photometric, big_endian=big_endian)
    assert len({decode(content, 8, bits=bits).sha256 for bits in (None, 10, 12, 14, 16)}) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tiff(np.arange(64, dtype=np.int16).reshape(8, 8), sample_format=2), "its pixels are signed 16-bit numbers"),
        (tiff(-DEEP.astype(np.int16), sample_format=2, big_endian=True), "its pixels are signed 16-bit numbers"),
        (tiff(DEEP.astype(np.int8), sample_format=2, bits=8), "its pixels are signed 8-bit numbers"),
        (encode((DEEP * 100).astype(np.int32), "TIFF"), "its pixels are 32-bit numbers, whose white value is unknown"),
        (encode((DEEP * 100).astype(np.uint16)), "its values reach 6,300, more than the 4,095 of 12 bits"),
    ],
)
def test_gray_without_a_known_white_is_unreadable(content, reason):
    with pytest.raises(ValueError, match=reason):
        decode(content, 8, bits=12)


def gray_folder(largest, **settings):
    """A dataset of two 16-bit images and an 8-bit one."""
    pixels = [(np.arange(64).reshape(8, 8) * largest // 63 // part).astype(np.uint16) for part in (1, 2)]
    files = {"a/1.png": encode(pixels[0]), "b/1.tif": encode(pixels[1], "TIFF"), "b/2.png": png(plain(RED))}
    return source_dataset("folder", files, **settings)


@pytest.mark.parametrize(
    ("largest", "bits"), [(200, 8), (900, 10), (1023, 10), (1024, 12), (3800, 12), (4095, 12), (5000, 14), (16383, 14)]
)
def test_a_dataset_of_16_bit_images_that_use_fewer_bits_needs_a_setting(largest, bits):
    with pytest.raises(UserError) as error:
        prepared(gray_folder(largest))
    assert str(error.value) == (
        f"d: the values of the 16-bit images reach only {largest:,} of 65,535, so the images would be nearly black. "
        f"Write `bits: {bits}` if {2**bits - 1:,} is white, or `bits: 16` if they are that dark."
    )
    assert has_no_images()
    images = prepared(gray_folder(largest, bits=bits))
    assert images.bits == bits
    assert images.pixels[:2].max() == largest >> (bits - 8)
    assert prepared(gray_folder(largest, bits=16)).pixels[:2].max() == largest >> 8


def test_16_bit_images_that_use_all_bits_need_no_setting():
    images = prepared(gray_folder(20_000))
    assert images.bits is None
    assert images.pixels[:2].max() == 20_000 >> 8


def deep_png(color_type, pixels):
    """A PNG file of (height, width, bands) 16-bit numbers."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = pixels.shape
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return content + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("color_type", "bands"),
    [(2, [3000, 2000, 100]), (4, [3000, 30_000]), (6, [9, 3000, 9, 0]), (6, [3000] * 3 + [65535])],
)
@pytest.mark.parametrize("others", [{}, {"b/2.png": encode((DEEP * 60).astype(np.uint16))}], ids=["alone", "and gray"])
def test_dark_16_bit_colors_are_reported(color_type, bands, others):
    """Pillow keeps only their upper eight bits."""
    content = deep_png(color_type, np.full((8, 8, len(bands)), bands))
    files = {"a/1.png": content, "b/1.png": content, **others}
    with pytest.raises(UserError) as error:
        prepared(source_dataset("folder", files))
    largest = 3780 if others else 3071
    assert str(error.value) == (
        f"d: the values of the 16-bit images reach only {largest:,} of 65,535, so the images would be nearly black. "
        "Some of them are in color: convert them to 8 bits, or write `bits: 16` if they are that dark."
    )
    assert prepared(source_dataset("folder", files, bits=16)).bits == 16
    with pytest.raises(ValueError, match="it has 16-bit colors"):
        decode(content, 8, bits=12)


def test_bits_apply_in_worker_processes(two_processes):
    pixels = [(DEEP * number).astype(np.uint16) for number in range(1, 60)]
    files = {f"{'ab'[number % 2]}/{number}.png": encode(deep) for number, deep in enumerate(pixels)}
    images = prepared(source_dataset("folder", files, bits=12))
    for row in images.table.itertuples():
        deep = pixels[int(Path(row.name).stem)]
        assert np.array_equal(images.pixels[row.index][:, :, 0], deep >> 4)


def test_new_images_are_decoded_with_the_bits_of_the_training_images():
    pixels = []
    Path("new.png").write_bytes(encode((DEEP * 60).astype(np.uint16)))

    def predict_batch(batch):
        pixels.append(batch)
        return np.full((len(batch), 3), 1 / 3)

    for bits in (12, None):
        record = model_record("net", "network", image_size=8, bits=bits)
        assert len(list(predict.predict_images(record, predict_batch, unlabeled_images(Path("new.png")), 1))) == 1
    assert [batch.max() for batch in pixels] == [DEEP.max() * 60 >> 4, DEEP.max() * 60 >> 8]


# Metadata.


def png_with(*chunks, before=True, pixels=NOISE):
    """A PNG file with more chunks, (kind, body), before or behind its pixels."""
    content = png(pixels)
    inserted = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    position = 33 if before else len(content) - 12
    return content[:position] + inserted + content[position:]


MANY = 20 * 2**20  # bytes, more than the limit
METADATA = {
    "color profile": [(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2 * 2**20)))],
    "large color profile": [(b"iCCP", b"profile\0\0" + zlib.compress(bytes(MANY)))],
    "compressed text": [(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * MANY))],
    "text": [(b"tEXt", b"Comment\0" + b"x" * 2 * 2**20)],
    "XMP": [(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x/>" + b" " * 2 * 2**20))],
    "large XMP": [(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x/>" + b" " * MANY))],
    "damaged text": [(b"tEXt", b"no separator"), (b"zTXt", b"Comment\0\7nothing")],
    "damaged profile": [(b"iCCP", b"profile\0\0nothing"), (b"iTXt", b"x")],
    "many texts": [(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 8 * 2**20))] * 10,
}


@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
@pytest.mark.parametrize("chunks", METADATA.values(), ids=METADATA)
def test_large_metadata_does_not_make_an_image_unreadable(chunks, before):
    decoded = decode(png_with(*chunks, before=before), 32)
    assert np.array_equal(decoded.pixels, NOISE)
    assert decoded.sha256 == decode(png(NOISE), 32).sha256


def test_a_wrong_checksum_of_metadata_does_not_make_an_image_unreadable():
    content = png_with((b"tEXt", b"Comment\0cat"))
    assert np.array_equal(decode(content.replace(b"\0cat", b"\0dog"), 32).pixels, NOISE)


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_decompression_bomb_with_large_metadata_is_unreadable(side):
    bomb, whole = png_of_size(side, side), png_with(*METADATA["large XMP"])
    with pytest.raises((Image.DecompressionBombError, Image.DecompressionBombWarning)):
        decode(bomb[:33] + whole[33 : whole.index(b"IDAT") - 4] + bomb[33:], 32)


def test_the_orientation_is_read_from_large_metadata():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(NOISE, exif=exif)
    large = content[:33] + png_with(*METADATA["large color profile"])[33:].split(b"IDAT")[0][:-4] + content[33:]
    assert np.array_equal(decode(large, 32).pixels, np.rot90(NOISE, -1))


def test_large_metadata_of_a_broken_image_does_not_hide_the_reason():
    content = png_with(*METADATA["large color profile"])
    with pytest.raises(OSError, match="truncated"):
        decode(content[: len(content) - 1500], 32)


# Interrupted runs.

CONTENTS = [png(plain(number)) if number % 5 else b"text" for number in range(1, 18)]


def interrupted_source(at, exception=KeyboardInterrupt):
    """A source that raises `exception` at one image."""

    def content():
        raise exception

    source = source_of(*CONTENTS)
    source[at] = source[at]._replace(content=content)
    return source


def recording_source(read_names):
    """A source that records the names of the images that are read."""

    def content_of(image):
        read_names.append(image.name)
        return image.content()

    return [image._replace(content=lambda image=image: content_of(image)) for image in source_of(*CONTENTS)]


@pytest.fixture(scope="module")
def uninterrupted_files(tmp_path_factory):
    """The files of an uninterrupted run."""
    with contextlib.chdir(tmp_path_factory.mktemp("uninterrupted_files")):
        write_images("d", source_of(*CONTENTS), 8, 0.5)
        return all_files("data/images")


def names(numbers):
    return [f"{number}.png" for number in numbers]


@pytest.mark.parametrize("at", [0, 1, 5, 16])
def test_an_interrupted_run_is_resumed(at, uninterrupted_files, capsys):
    with pytest.raises(KeyboardInterrupt):
        write_images("d", interrupted_source(at), 8, 0.5, **FINGERPRINT)
    assert not Path("data/images/d").exists()
    capsys.readouterr()
    read_names = []
    write_images("d", recording_source(read_names), 8, 0.5, **FINGERPRINT)
    assert read_names == names(range(at, len(CONTENTS)))
    assert all_files("data/images") == uninterrupted_files
    message = f"prepare d: resuming after {counted(at, 'image')}\n" if at else ""
    assert capsys.readouterr().out == message


def test_a_run_may_be_interrupted_several_times(uninterrupted_files):
    for at in (3, 3, 9, 14):
        with pytest.raises(KeyboardInterrupt):
            write_images("d", interrupted_source(at), 8, 0.5, **FINGERPRINT)
    write_images("d", source_of(*CONTENTS), 8, 0.5, **FINGERPRINT)
    assert all_files("data/images") == uninterrupted_files


@pytest.mark.parametrize("pixels", [0, 100, 128, 400, None])
@pytest.mark.parametrize("rows", [0, 30, 1500, None])
def test_truncated_partial_files_are_resumed(rows, pixels, uninterrupted_files):
    """A power failure may truncate the two files differently; None keeps all bytes."""
    with pytest.raises(KeyboardInterrupt):
        write_images("d", interrupted_source(12), 8, 0.5, **FINGERPRINT)
    for name, length in (("rows", rows), ("images.npy", pixels)):
        path = Path("data/images/.partial-d", name)
        path.write_bytes(path.read_bytes()[:length])
    read_names = []
    write_images("d", recording_source(read_names), 8, 0.5, **FINGERPRINT)
    assert read_names == names(range(len(CONTENTS) - len(read_names), len(CONTENTS)))
    assert all_files("data/images") == uninterrupted_files


@pytest.mark.parametrize("changed", [{"fingerprint": "another"}, {"image_size": 16}, {"resize": "stretch"}])
def test_changed_settings_restart_the_run(changed):
    with pytest.raises(KeyboardInterrupt):
        write_images("d", interrupted_source(12), 8, 0.5, **FINGERPRINT)
    read_names = []
    settings = {"image_size": 8, "max_unreadable": 0.5, **FINGERPRINT, **changed}
    write_images("d", recording_source(read_names), **settings)
    assert read_names == names(range(len(CONTENTS)))
    size = settings["image_size"]
    assert read_images("d").pixels.shape[1:] == (size, size, 3)


@pytest.mark.parametrize("error", [UserError, OSError, ValueError, MemoryError])
def test_a_source_error_removes_the_partial_folder(error):
    def source():
        yield from source_of(*CONTENTS)
        raise error("in the middle")

    with pytest.raises(error, match="in the middle"):
        write_images("d", source(), 8, 0.5, **FINGERPRINT)
    assert has_no_images()


def test_a_full_disk_removes_the_partial_folder(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "IMAGES_A_CHECKPOINT", 3)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_images("d", source_of(*CONTENTS), 8, 0.5, **FINGERPRINT)
    assert has_no_images()


def files_of_three_classes():
    return {f"{label}/{number}.png": png(plain(number + 80)) for label in "abc" for number in range(4)}


@pytest.mark.parametrize("shape", ["folder", "zip"])
@pytest.mark.parametrize("change", ["nothing", "a file", "one more", "one less", "settings", "the share"])
def test_an_interrupted_stage_resumes_only_if_inputs_are_unchanged(shape, change, monkeypatch):
    read_names = []

    def decoding(content, *settings):
        read_names.append(content)
        if len(read_names) == stop:
            raise KeyboardInterrupt
        return decode(content, *settings)

    monkeypatch.setattr(workers, "decode", decoding)
    files, stop = files_of_three_classes(), 8
    dataset = source_dataset(shape, files)
    if shape != "folder":
        download.main(params_with(d=dataset), "d")
    with pytest.raises(KeyboardInterrupt):
        prepare.main(params_with(d=dataset), "d")
    stop = None
    read_names.clear()
    if change == "a file":
        files["a/0.png"] = png(plain(RED, 16))
    elif change == "one more":
        files["c/9.png"] = png(plain(RED))
    elif change == "one less":
        del files["c/3.png"]
    if change in ("a file", "one more", "one less"):
        dataset = source_dataset(shape, files)
    elif change == "settings":
        dataset = dataset.model_copy(update={"resize": "pad"})
    elif change == "the share":
        dataset = dataset.model_copy(update={"max_unreadable": 0.5})
    if shape != "folder":
        download.main(params_with(d=dataset), "d")
    prepare.main(params_with(d=dataset), "d")
    assert len(read_names) == (5 if change == "nothing" else len(files))
    assert list(read_images("d").table["name"]) == sorted(files)


KILLED = """
import os, signal
from stages import prepare
from stages.core.params import Params
from stages.sources import folders, workers, writing

def read(*name, _read=folders._read, _asked=[]):
    _asked.append(name)
    if len(_asked) == 50:
        os.kill(os.getpid(), signal.SIGKILL)
    return _read(*name)

if __name__ == "__main__":
    folders._read, writing.IMAGES_A_CHECKPOINT, workers.IMAGES_PER_MESSAGE = read, 5, 4
    os.sched_getaffinity = lambda _: {0, 1}
    workers.SECONDS_IN_PROCESS = ALONE
    dataset = {"source": "folder", "path": "source", "image_size": 8}
    prepare.main(Params({"datasets": {}, "folders": {"d": dataset}}), "d")
"""


@pytest.mark.parametrize(("seconds", "done"), [(1000, 45), (0, 25)])
def test_a_killed_process_is_resumed_and_leaves_no_child(seconds, done, monkeypatch):
    dataset = source_dataset("folder", {f"{'ab'[n % 2]}/{n:02}.png": png(plain(n + 1)) for n in range(60)})
    killed = subprocess.run(
        [sys.executable, "-c", KILLED.replace("= ALONE", f"= {seconds}")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,  # waits until all child processes have ended
        timeout=300,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sorted(path.name for path in Path("data/images").iterdir()) == [".partial-d"]
    read_names = []

    def read(*name, _read=folders._read):
        read_names.append(name)
        return _read(*name)

    with monkeypatch.context() as patch:
        patch.setattr(folders, "_read", read)
        images = prepared(dataset)
    assert 10 <= len(read_names) <= 60 - done
    assert list(images.pixels[:, 0, 0, 0]) == [*range(1, 61, 2), *range(2, 61, 2)]
    resumed = all_files("data/images")
    prepared(dataset)
    assert all_files("data/images") == resumed


def test_the_npy_header_has_a_constant_length():
    headers = [io.BytesIO() for _ in range(3)]
    for header, images in zip(headers, (0, 1, 10**9), strict=True):
        writing._write_header(header, images, 224)
    assert len({len(header.getvalue()) for header in headers}) == 1
    headers[-1].seek(6 + 2)
    assert np.lib.format.read_array_header_1_0(headers[-1]) == ((10**9, 224, 224, 3), False, np.dtype(np.uint8))


# Worker processes.


def test_parallel_decoding_gives_the_same_bytes(two_processes, monkeypatch):
    contents = [*CONTENTS, encode(NOISE, "JPEG"), NOISE, NOISE[:, :, 0]] * 2
    main_process_calls = []

    def counting_try(*arguments, _try=workers._try):
        main_process_calls.append(arguments)
        return _try(*arguments)

    def broken():
        raise ValueError("broken outside")

    monkeypatch.setattr(workers, "_try", counting_try)
    source = [*source_of(*contents), SourceImage("x.png", "a", broken)]
    write_images("d", source, 8, 0.5)
    assert len(main_process_calls) == 1  # the first image, before the workers start
    parallel_files = all_files("data/images")
    monkeypatch.setattr(workers, "SECONDS_IN_PROCESS", 1000)
    write_images("d", source, 8, 0.5)
    assert len(main_process_calls) == 1 + len(source)
    assert all_files("data/images") == parallel_files
    broken_names = names(n for n in range(len(contents)) if contents[n] is CONTENTS[4])
    assert list(quarantine()) == [*broken_names, "x.png"]


def test_one_cpu_decodes_in_the_main_process(two_processes, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    write_images("d", source_of(*CONTENTS), 8, 0.5)
    assert not multiprocessing.active_children()
    assert len(read_images("d").table) == 14


def test_the_number_of_pending_images_is_bounded(two_processes):
    """At most two messages of four images are pending per process."""
    read_names = []

    def content(number):
        read_names.append(number)
        return png(plain(RED))

    source = (SourceImage(f"{number}.png", "a", lambda number=number: content(number)) for number in range(100))
    pending = [len(read_names) - number for number, _ in enumerate(workers.decode_all(source, 8, "crop"), start=1)]
    assert read_names == list(range(100))
    assert len(pending) == 100
    assert 4 < max(pending) <= 2 * 2 * 4


def test_message_size_is_bounded(monkeypatch):
    monkeypatch.setattr(workers, "IMAGES_PER_MESSAGE", 10)
    monkeypatch.setattr(workers, "BYTES_PER_MESSAGE", 100_000)

    def sizes(content, image_size):
        return [len(message) for message in workers._messages(iter(source_of(*[content] * 12)), image_size)]

    assert sizes(b"x", 8) == [10, 2]
    assert sizes(bytes(30_000), 8) == [4, 4, 4]
    assert sizes(bytes(200_000), 8) == [1] * 12
    assert sizes(b"x", 100) == [3, 3, 3, 3]  # the results have 30,000 bytes each
    assert sizes(b"x", 1000) == [1] * 12


def test_a_source_error_is_raised_with_worker_processes(two_processes):
    def source():
        yield from source_of(*CONTENTS)
        raise UserError("the archive ends here.")

    with pytest.raises(UserError, match="the archive ends here"):
        write_images("d", source(), 8, 0.5)
    assert has_no_images()
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_a_user_error(two_processes):
    def content(number):
        if number == 30:
            multiprocessing.active_children()[0].kill()
        return png(plain(RED))

    source = [SourceImage(f"{number}.png", "a", lambda number=number: content(number)) for number in range(100)]
    with pytest.raises(UserError, match=r"^a process that decodes images was killed, .*\.$"):
        write_images("d", source, 8, 0.5)
    assert has_no_images()


# Prepared images.


def test_prepare_writes_an_array_and_tables():
    files = {"test/b/1.png": png(plain(RED)), "train/a/1.png": png(plain(GREEN)), "train/a/2.png": b"text"}
    prepared(archive_dataset("a.zip", files, max_unreadable=0.5))
    folder = Path("data/images/d")
    assert sorted(path.name for path in folder.iterdir()) == [
        "images.npy",
        "quarantine.csv",
        "record.json",
        "table.csv",
    ]
    pixels = np.load(folder / "images.npy", allow_pickle=False)
    assert (pixels.shape, pixels.dtype) == ((2, 8, 8, 3), np.uint8)
    red, green = (hashlib.sha256(b"8x8" + plain(color).tobytes()).hexdigest() for color in (RED, GREEN))
    with (folder / "table.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["index", "label", "class", "split", "group", "sha256", "perceptual_hash", "name"]
    hashes = [decode(png(plain(color)), 8).perceptual_hash for color in (RED, GREEN)]
    assert rows == [
        ["0", "1", "b", "test", "", red, hashes[0], "test/b/1.png"],
        ["1", "0", "a", "train", "", green, hashes[1], "train/a/1.png"],
    ]
    assert (folder / "quarantine.csv").read_text() == (f'name,class,reason\ntrain/a/2.png,a,"{UNKNOWN_FORMAT}"\n')
    assert json.loads((folder / "record.json").read_text()) == {
        "images": 2,
        "image_size": 8,
        "resize": "crop",
        "classes": ["a", "b"],
        "images_sha256": sha256_of(folder / "images.npy"),
    }


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_resize_is_a_setting_of_the_dataset(resize):
    wide = np.concatenate([plain(RED), plain(GREEN), plain(BLUE)], axis=1)
    images = prepared(archive_dataset("a.zip", {"a/1.png": png(wide)}, resize=resize))
    assert np.array_equal(images.pixels, [decode(wide, 8, resize).pixels])


def test_equal_input_gives_equal_bytes():
    files = {f"{'ab'[number % 2]}/{number}.png": png(plain(number)) for number in range(9)} | {"a/x.png": b"text"}
    dataset = archive_dataset("a.tar.gz", files, max_unreadable=0.5)
    prepared(dataset)
    first = all_files()
    prepared(dataset)
    assert all_files() == first


@pytest.mark.parametrize("damage", ["shorten", "remove", "swap", "table", "record"])
def test_damaged_prepared_images_are_an_error(damage):
    write_images("d", source_of(png(plain(RED)), png(plain(BLUE))), 8, 0.0)
    path = Path("data/images/d/images.npy")
    if damage == "shorten":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "remove":
        path.unlink()
    elif damage == "table":
        path.with_name("table.csv").write_text("a,b\n1,2\n3,4\n")
    elif damage == "record":
        path.with_name("record.json").write_text("{}")
    else:
        np.save(path, np.zeros((3, 8, 8, 3), np.uint8))
    sentence = r"data/images/d(/images\.npy is missing\. .*| is damaged .*. Delete it and run `dvc repro`)\.$"
    with pytest.raises(UserError, match=sentence):
        read_images("d")


def test_missing_prepared_images_are_an_error():
    with pytest.raises(UserError, match=r"data/images/d/record\.json is missing. Run `dvc repro` to create it\.$"):
        read_images("d")


# Real images.


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    with contextlib.chdir(tmp_path_factory.mktemp("digits")):
        return prepared(DigitsConfig(source="digits", image_size=8))


def test_digits_equal_those_of_scikit_learn(digits):
    original = load_digits()
    assert digits.classes == list("0123456789")
    assert digits.pixels.shape == (1797, 8, 8, 3)
    assert np.array_equal(digits.table["label"], original.target)
    expected = np.rint(original.images * 255 / 16).astype(np.uint8)
    assert np.array_equal(digits.pixels, np.repeat(expected[..., None], 3, axis=-1))
