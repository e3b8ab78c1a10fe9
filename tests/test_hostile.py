"""Hostile and broken data, from the source to the split.

Each case damages a good dataset. Either the bad files are excluded, each with a reason, or a stage exits with one
sentence and leaves no files. After the cause is fixed, the next run prepares all images.
"""

import contextlib
import errno
import http.server
import io
import os
import resource
import runpy
import shutil
import socket
import stat
import struct
import sys
import tarfile
import threading
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

import stages.core.files
from stages.artifacts.images import read_images
from stages.artifacts.tasks import SPLITS, read_task
from stages.core.files import sha256_of
from stages.sources import archives, fetch, folders, workers
from stages.sources.decoding import UNKNOWN_FORMAT
from stages.sources.layout import printable
from tests.conftest import encode, plain, png, png_of_size, write_archive, write_tree

ROOT = Path(__file__).parents[1]
STAGES = {"download": "d", "prepare": "d", "split": "t"}  # in order, each with its entry
LOCAL = ("folder", "csv")  # sources that are not fetched
OUTPUTS = {"download": "data/raw", "prepare": "data/images", "split": "data/tasks"}
NOISE = np.random.default_rng(0).integers(0, 256, (24, 20, 20, 3), np.uint8)
GOOD = {f"{'cat' if number < 12 else 'dog'}/{number:02}.png": png(pixels) for number, pixels in enumerate(NOISE)}
PNG, JPEG = GOOD["cat/00.png"], encode(NOISE[0], "JPEG")
TIFF = encode(NOISE[0], "TIFF", compression="tiff_lzw")
TRAINING = {
    "epochs": 1,
    "batch_size": 1,
    "optimizer": "adam",
    "learning_rate": 0.1,
    "early_stopping": None,
    "repeats": 1,
    "max_train_per_class": None,
}


class Project:
    """A good dataset in the current folder, the study that uses it, and the changes of a case.

    source: zip, tar, tar.gz, server (of a zip), folder or csv. patch: undone when the cause is fixed.
    """

    def __init__(self, source, server, unprivileged):
        self.source, self.server, self.unprivileged = source, server, unprivileged
        self.patch = pytest.MonkeyPatch()
        self.path = Path("photos" if source in LOCAL else f"photos.{source.replace('server', 'zip')}")
        self.limits = {}  # stage -> size in bytes of the largest file that it can write
        self.before = {}  # stage -> function that is called just before it
        self.write()

    def write(self, files=GOOD, **keys):
        """Write the dataset and the study. keys: of the dataset; `task`: keys of the task."""
        self.files = dict(files)
        if self.source in LOCAL:
            write_tree(self.path, files)
        else:
            write_archive(self.path, files)
        self.table()
        self.study(**keys)

    def table(self, *more, header="path,label", good=True):
        """Write the table of a csv source: the rows of the files, unless good is False, then more rows."""
        if self.source == "csv":
            rows = [f"{name},{name.split('/')[0]}" for name in self.files] if good else []
            (self.path / "labels.csv").write_text("\n".join([header, *rows, *more, ""]), encoding="utf-8")

    def study(self, **keys):
        """Write params.yaml."""
        task = {"dataset": "d", "validation": 3, "test": 0.25, **keys.pop("task", {})}
        dataset = {"image_size": 16, "max_unreadable": 0.1, **keys}
        if self.source in LOCAL:
            dataset = {"source": self.source, "path": str(self.path), **dataset}
        else:
            url = self.server.address if self.source == "server" else str(self.path)
            dataset = {"source": "archive", "url": url, "sha256": sha256_of(self.path), **dataset}
        section = "folders" if self.source in LOCAL else "datasets"
        study = {
            "seed": 0,
            **{section: {} for section in ("datasets", "folders", "features", "heads", "probes", "fine_tunes")},
            section: {"d": dataset},
            "tasks": {"t": task},
            "backbones": {"b": {"architecture": "four_conv", "weights": "random"}},
            "networks": {"n": {"dataset": "d", "task": "t", "backbone": "b"}},
            "training": TRAINING,
        }
        Path("params.yaml").write_text(yaml.safe_dump(study))

    def fix(self):
        self.patch.undo()
        self.limits.clear()
        self.before.clear()
        self.server.respond = sends_file
        for path in [Path(), *Path().rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755)
        self.write()


class Case(NamedTuple):
    """source: of the project. damage: a function that damages the project.

    excluded: name of each excluded file -> part of the reason. stage: the stage that fails, if one does.
    message: a part of its error.
    """

    source: str
    damage: Callable
    excluded: Mapping = MappingProxyType({})
    stage: str = ""
    message: str = ""


def with_files(changes, **keys):
    """Damage: added or changed files of the good dataset, None to remove one; and keys of the study."""

    def damage(project):
        contents = {**GOOD, **changes}
        project.write({name: content for name, content in contents.items() if content is not None}, **keys)

    return damage


def with_file(content, name="cat/00.png"):
    return with_files({name: content})


def renamed(old, new):
    return lambda project: project.write({name.replace(old, new): content for name, content in GOOD.items()})


def with_keys(**keys):
    return lambda project: project.study(**keys)


# Changes of an archive.


def edited(edit):
    """Damage: edited bytes of the archive, with a correct checksum. edit: a function of the bytes."""

    def damage(project):
        project.path.write_bytes(edit(project.path.read_bytes()))
        project.study()

    return damage


def with_zip_entry(name, mode, content):
    """Damage: a zip with an added entry of this Unix mode."""

    def damage(project):
        with zipfile.ZipFile(project.path, "a") as archive:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
        project.study()

    return damage


def with_tar_members(*members):
    """Damage: a tar with added members: (name, type, target of the link, content)."""

    def damage(project):
        with tarfile.open(project.path, "a") as archive:
            for name, kind, target, content in members:
                info = tarfile.TarInfo(name)
                info.type, info.linkname, info.size = kind, target, len(content)
                archive.addfile(info, io.BytesIO(content))
        project.study()

    return damage


def with_header(name, field, value):
    """Damage: another two-byte number in both headers of a file in a zip; field: its offset in the local header."""

    def edit(content):
        content = bytearray(content)
        for start, size, offset in ((b"PK\3\4", 30, field), (b"PK\1\2", 46, field + 2)):
            header = content.find(start)
            while content[header + size : header + size + len(name)] != name.encode():
                header = content.find(start, header + 1)
            struct.pack_into("<H", content, header + offset, value)
        return bytes(content)

    return edited(edit)


def version_99(content):
    offset = content.find(b"PK\1\2") + 6
    return content[:offset] + b"\x63\0" + content[offset + 2 :]


def invalid_utf8(content):
    """A zip with a name that is marked as UTF-8, but is not valid UTF-8."""
    header = content.rfind(b"PK\1\2")
    content = bytearray(content)
    struct.pack_into("<H", content, header + 8, 0x800)
    content[header + 46] = 0xFF
    return bytes(content)


# Changes of a folder.


def with_path(make):
    """Damage: an added file in the class folder cat. make: a function that creates it at a path."""

    def damage(project):
        make(project.path / "cat/more.png")
        project.table("cat/more.png,cat")

    return damage


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as unix, contextlib.chdir(path.parent):
        unix.bind(path.name)


def locked(name=""):
    def damage(project):
        (project.path / name if name else project.path).chmod(0)
        project.unprivileged()

    return damage


def with_rows(*more, **options):
    return lambda project: project.table(*more, **options)


def with_table(content):
    return lambda project: (project.path / "labels.csv").write_bytes(content)


# Changes of the machine.


def disk_full(stage, size):
    """Damage: no file can be larger than `size` bytes, as on a full disk."""
    return lambda project: project.limits.update({stage: size})


def before(stage, action):
    return lambda project: project.before.update({stage: action})


def two_files():
    Path("data/raw/d/more.zip").write_bytes(b"x")


def shortened_pixels():
    path = Path("data/images/d/images.npy")
    path.write_bytes(path.read_bytes()[:-1])


def full_disk(project):
    """Damage: folders can be created, but files cannot."""

    def write_text(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    project.patch.setattr(stages.core.files, "write_text", write_text)


def little_space(project):
    project.patch.setattr(fetch.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))


def smaller_limit(project):
    for module in (archives, folders):
        project.patch.setattr(module, "LARGEST_FILE", 3000)
    project.write({**GOOD, "cat/00.png": bytes(3001)})


def locked_outputs(project):
    Path("data").mkdir()
    Path("data").chmod(0o555)
    project.unprivileged()


# Behavior of a server.


def sends_file(handler):
    content = Path("photos.zip").read_bytes()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def sends_half(handler):
    content = Path("photos.zip").read_bytes()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])


def sends_page(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "13")
    handler.end_headers()
    handler.wfile.write(b"<html></html>")


def returns(status):
    def respond(handler):
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return respond


def sends_nothing(handler):
    handler.server.closing.wait(60)


def server(respond):
    def damage(project):
        project.server.respond = respond

    return damage


def closed_port(project):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        project.study(url=f"http://127.0.0.1:{free.getsockname()[1]}/photos.zip")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.respond(self)

    def log_message(self, *_):
        pass


@pytest.fixture
def archive_server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.respond, running.closing = sends_file, threading.Event()
        running.address = f"http://127.0.0.1:{running.server_port}/photos.zip"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.closing.set()
        running.shutdown()
        thread.join()


def gif_with_broken_second_frame():
    first, second = (Image.fromarray(pixels).quantize(250) for pixels in NOISE[:2])
    content = encode(first, "GIF", save_all=True, append_images=[second])
    return content[: len(content) * 3 // 4]


LONG = "n" * 240 + ".png"
NOT_AN_IMAGE = UNKNOWN_FORMAT
OUTSIDE = "its path leads out of the source"
NOT_AN_ARCHIVE = "neither a zip nor a tar archive. Give one of them."

CASES = {
    # One broken file is excluded.
    "corrupt PNG": Case("zip", with_file(PNG[:100] + bytes(99) + PNG[199:]), {"cat/00.png": "broken"}),
    "truncated PNG": Case("folder", with_file(PNG[:500]), {"cat/00.png": "truncated"}),
    "truncated JPEG": Case("tar.gz", with_file(JPEG[:-200]), {"cat/00.png": "truncated"}),
    "truncated header": Case("csv", with_file(JPEG[:100]), {"cat/00.png": "Truncated File Read"}),
    "truncated TIFF, for which Pillow prints a warning": Case(
        "zip", with_file(TIFF[:400]), {"cat/00.png": "it is a damaged TIFF file"}
    ),
    "truncated WebP": Case("zip", with_file(encode(NOISE[0], "WEBP")[:300]), {"cat/00.png": "decoder"}),
    "zero bytes": Case("zip", with_file(b""), {"cat/00.png": "the file is empty"}),
    "text named .jpg": Case("csv", with_file(b"Dear photographer", "dog/a.jpg"), {"dog/a.jpg": NOT_AN_IMAGE}),
    "1x1 image": Case(
        "zip", with_file(png(plain(0, 1))), {"cat/00.png": "the image has 1x1 pixels; the minimum is 4x4"}
    ),
    "bomb": Case("zip", with_file(png_of_size(30_000, 30_000)), {"cat/00.png": "decompression bomb"}),
    "large file": Case("folder", smaller_limit, {"cat/00.png": "it has 3,001 bytes, more than 3,000"}),
    "large file in a zip": Case("zip", smaller_limit, {"cat/00.png": "it unpacks to 3,001 bytes, more than 3,000"}),
    "pixels that are fractions": Case(
        "zip", with_file(encode(np.ones((9, 9), np.float32), "TIFF")), {"cat/00.png": "its pixels are 32-bit"}
    ),
    "name of two lines": Case("folder", with_file(b"", "dog/a\nb.png"), {"dog/a\\nb.png": "the file is empty"}),
    "name that is not UTF-8": Case("folder", with_file(b"", "dog/\udce4.png"), {"dog/\\xe4.png": "the file is empty"}),
    "long name": Case("tar", with_file(b"", f"dog/{LONG}"), {f"dog/{LONG}": "the file is empty"}),
    "image beside the classes": Case("zip", with_file(JPEG, "a.jpg"), {"a.jpg": "it is next to the class folders"}),
    # Paths and links that lead out of the source are excluded.
    "zip with ../": Case("zip", with_file(PNG, "../cat/a.png"), {"../cat/a.png": OUTSIDE}),
    "tar with a path from the root": Case(
        "tar", with_tar_members(("/cat/a.png", tarfile.REGTYPE, "", JPEG)), {"/cat/a.png": OUTSIDE}
    ),
    "link out of a tar": Case(
        "tar",
        with_tar_members(("cat/a.png", tarfile.SYMTYPE, "/etc/passwd", b"")),
        {"cat/a.png": "it is a link, not a file"},
    ),
    "link out of a zip": Case(
        "zip",
        with_zip_entry("cat/a.png", stat.S_IFLNK | 0o777, "/etc/passwd"),
        {"cat/a.png": "it is a link, not a file"},
    ),
    "link out of a folder": Case(
        "folder", with_path(lambda path: path.symlink_to("/etc/passwd")), {"cat/more.png": "it leads out of the folder"}
    ),
    "link to nothing": Case(
        "folder",
        with_path(lambda path: path.symlink_to("nothing")),
        {"cat/more.png": "it cannot be read (No such file"},
    ),
    "link to itself": Case(
        "folder", with_path(lambda path: path.symlink_to("more.png")), {"cat/more.png": "it cannot be read ("}
    ),
    "path out of the folder": Case("csv", with_rows("../a.png,cat"), {"../a.png": "it leads out of the folder"}),
    # Paths that are not files are excluded.
    "device in a tar": Case(
        "tar", with_tar_members(("cat/a.png", tarfile.CHRTYPE, "", b"")), {"cat/a.png": "it is not a file"}
    ),
    "pipe": Case("folder", with_path(os.mkfifo), {"cat/more.png": "it is not a file"}),
    "socket": Case("folder", with_path(make_socket), {"cat/more.png": "it is not a file"}),
    "folder named .png": Case("csv", with_path(Path.mkdir), {"cat/more.png": "it is not a file"}),
    "missing file": Case("csv", with_rows("cat/more.png,cat"), {"cat/more.png": "it does not exist"}),
    # Files that cannot be unpacked or read are excluded.
    "password": Case("zip", with_header("dog/12.png", 6, 1), {"dog/12.png": "password required"}),
    "unknown compression": Case("zip", with_header("dog/12.png", 8, 99), {"dog/12.png": "compression method"}),
    "bytes changed in a zip": Case(
        "zip",
        edited(lambda content: content.replace(b"IEND", b"IENX", 1)),
        {"cat/00.png": "CRC"},
    ),
    "no permission to read a file": Case("folder", locked("cat/00.png"), {"cat/00.png": "(Permission denied)"}),
    # Unusual, but not broken.
    "GIF with a broken second frame": Case("zip", with_file(gif_with_broken_second_frame())),
    "16-bit PNG": Case("folder", with_file(png(NOISE[0, :, :, 0].astype(np.uint16) << 8))),
    "JPEG of a printer named .png": Case("zip", with_file(encode(Image.fromarray(NOISE[0]).convert("CMYK"), "JPEG"))),
    "very long strip": Case("zip", with_file(png(NOISE.reshape(-1, 4, 3)))),
    "one image under two names and labels": Case("zip", with_file(PNG, "dog/a.png")),
    "litter of other systems": Case("zip", with_zip_entry("__MACOSX/cat/._00.png", 0o644, "x")),
    # The dataset is broken: one sentence.
    "too many unreadable files": Case(
        "zip",
        with_files(dict.fromkeys(list(GOOD)[:3], b"")),
        stage="prepare",
        message="d: 3 of 24 files are unreadable, more than max_unreadable 10.0% (cat/00.png: the file is empty; "
        "cat/01.png: the file is empty; cat/02.png: the file is empty). Fix, convert or remove them, or raise "
        "max_unreadable.",
    ),
    "too many unreadable files with names of two lines": Case(
        "folder",
        with_files(dict.fromkeys(["dog/a\nb.png", "dog/c\rd.png", "dog/e.png"], b"")),
        stage="prepare",
        message="d: 3 of 27 files are unreadable",
    ),
    "unreadable class": Case(
        "csv",
        with_files(dict.fromkeys((name for name in GOOD if "cat" in name), b"text"), max_unreadable=0.6),
        stage="prepare",
        message="d: class 'cat' has no readable image. Fix its files, or remove the class.",
    ),
    "nothing readable": Case(
        "tar",
        with_files(dict.fromkeys(GOOD, b""), max_unreadable=0.9),
        stage="prepare",
        message="d: 24 of 24 files are",
    ),
    "empty class in a folder": Case(
        "folder",
        with_files({"owl/": b""}),
        stage="prepare",
        message="'photos': the class folder 'owl' is empty. Put images in it, or remove it.",
    ),
    "no class folders": Case(
        "tar",
        renamed("/", "-"),
        stage="prepare",
        message="'data/raw/d/photos.tar' has no <class>/<image> files. Put the images of each class in a folder",
    ),
    "missing subfolder": Case(
        "zip",
        with_keys(subfolder="photos"),
        stage="prepare",
        message="has no files in folder 'photos'. Correct subfolder.",
    ),
    "classes that differ in letter case": Case(
        "folder",
        renamed("cat/0", "Cat/0"),
        stage="split",
        message="tasks.t: classes 'Cat' and 'cat' differ only in letter case. If they are one class, write rename: "
        "{Cat: cat}; otherwise rename one of them.",
    ),
    "one class": Case(
        "zip",
        with_files(dict.fromkeys(name for name in GOOD if "dog" in name)),
        stage="split",
        message="tasks.t: a task needs two classes. Classes after include, exclude and rename: cat.",
    ),
    "few images of a class": Case(
        "zip",
        with_files(dict.fromkeys(list(GOOD)[6:12])),
        stage="split",
        message="tasks.t: class 'cat' has 1 train, 3 validation and 2 test images. Every split needs at least 2",
    ),
    "no published test images": Case(
        "zip",
        with_keys(task={"test": "published"}),
        stage="split",
        message="tasks.t.test: dataset 'd' does not publish test images (splits: none). Give a share, or a number",
    ),
    "truncated zip": Case("zip", edited(lambda content: content[:-900]), stage="prepare", message=NOT_AN_ARCHIVE),
    "truncated tar.gz": Case(
        "tar.gz", edited(lambda content: content[:-9000]), stage="prepare", message="is damaged ("
    ),
    "empty archive": Case("zip", edited(lambda _: b""), stage="prepare", message=NOT_AN_ARCHIVE),
    "archive of nothing": Case("zip", lambda project: project.write({}), stage="prepare", message="has no <class>/"),
    "zip of a later version": Case("zip", edited(version_99), stage="prepare", message="'data/raw/d/photos.zip'"),
    "zip with names that are not UTF-8": Case(
        "zip", edited(invalid_utf8), stage="prepare", message="'data/raw/d/photos.zip'"
    ),
    "missing folder": Case(
        "folder",
        lambda project: shutil.rmtree(project.path),
        stage="prepare",
        message="folder 'photos' does not exist. Correct `path`, or put the images there.",
    ),
    "linked class folder": Case(
        "folder",
        lambda project: Path("photos/owl").symlink_to("cat"),
        stage="prepare",
        message="'photos/owl' is a link to a folder, which is not followed. Replace it with the folder.",
    ),
    "no permission to read a folder": Case(
        "folder",
        locked("cat"),
        stage="prepare",
        message="folder 'photos/cat' cannot be read (Permission denied). ",
    ),
    "missing table": Case(
        "csv",
        lambda project: Path("photos/labels.csv").unlink(),
        stage="prepare",
        message="table 'photos/labels.csv' does not exist. Correct `path` or `table`.",
    ),
    "no permission to read a table": Case(
        "csv", locked("labels.csv"), stage="prepare", message="'photos/labels.csv' cannot be read as a table"
    ),
    "table without a column": Case(
        "csv", with_rows(header="path,class"), stage="prepare", message="'photos/labels.csv' has no column 'label'"
    ),
    "table that is not text": Case("csv", with_table(JPEG), stage="prepare", message="cannot be read as a table"),
    "table in UTF-16": Case(
        "csv",
        with_table("path,label\ncat/00.png,cat".encode("utf-16")),
        stage="prepare",
        message="Save it as UTF-8 text.",
    ),
    "empty table": Case(
        "csv", with_table(b""), stage="prepare", message="has no column 'path' and no column 'label'. Columns: none."
    ),
    "table without rows": Case("csv", with_rows(good=False), stage="prepare", message="'photos/labels.csv'"),
    "table with a row too long": Case("csv", with_rows("a,b,c,d"), stage="prepare", message="more cells than columns"),
    "table with a path twice": Case(
        "csv",
        with_rows("cat/00.png,dog"),
        stage="prepare",
        message="line 26: 'cat/00.png' is listed twice. Remove one of the lines.",
    ),
    "table with an unknown split": Case(
        "csv",
        with_rows("cat/00.png,cat,dev", header="path,label,split", good=False),
        stage="prepare",
        message="'photos/labels.csv', line 2: 'dev' is not a split. Give train, ",
    ),
    "table without a label": Case(
        "csv", with_rows("cat/more.png,"), stage="prepare", message="line 26: label is empty. Fill it in."
    ),
    # The source cannot be fetched: one sentence.
    "another checksum": Case(
        "zip",
        with_keys(sha256="0" * 64),
        stage="download",
        message="'photos.zip': checksum mismatch: the file has sha256:",
    ),
    "missing file to copy": Case(
        "zip",
        lambda project: project.path.unlink(),
        stage="download",
        message="'photos.zip' cannot be read (No such file or directory). Correct the path.",
    ),
    "folder as an archive": Case(
        "zip",
        with_keys(url="."),
        stage="download",
        message="'.' is a folder. Give a file: for images a zip or tar of the class folders, for weights a file that "
        "Keras saved.",
    ),
    "no permission to read an archive": Case(
        "zip", locked(), stage="download", message="'photos.zip' cannot be read (Permission denied). Correct the path."
    ),
    "server that stops half-way": Case(
        "server", server(sends_half), stage="download", message="cannot be downloaded (the connection was interrupted)"
    ),
    "server that sends a page": Case(
        "server", server(sends_page), stage="download", message="checksum mismatch: the file has"
    ),
    "server that answers 404": Case(
        "server",
        server(returns(404)),
        stage="download",
        message="cannot be downloaded (the server returned 404 Not Found)",
    ),
    "server that is silent": Case(
        "server",
        server(sends_nothing),
        stage="download",
        message="cannot be downloaded (the server timed out)",
    ),
    "closed port": Case("server", closed_port, stage="download", message="cannot be downloaded (no connection)"),
    # A full disk or missing permissions: one sentence.
    "disk full while copying": Case("zip", disk_full("download", 5000), stage="download", message="(File too large)"),
    "disk full while downloading": Case(
        "server", disk_full("download", 5000), stage="download", message="File too large"
    ),
    "little free disk space": Case(
        "zip", little_space, stage="download", message="but only 0.0 MB are free. Free some space"
    ),
    "disk full while preparing": Case("zip", disk_full("prepare", 9000), stage="prepare", message="(File too large)"),
    "disk full before preparing": Case(
        "folder", full_disk, stage="prepare", message="(No space left on device). Free some space"
    ),
    "disk full while splitting": Case("csv", disk_full("split", 500), stage="split", message="(File too large)"),
    "no permission to write": Case(
        "folder", locked_outputs, stage="prepare", message="(Permission denied). Free some space, or"
    ),
    # Damaged outputs of an earlier stage.
    "two fetched files": Case(
        "zip",
        before("prepare", two_files),
        stage="prepare",
        message="data/raw/d has 2 files instead of one. Delete it and run `dvc repro`.",
    ),
    "shortened pixels": Case(
        "zip",
        before("split", shortened_pixels),
        stage="split",
        message="data/images/d is damaged (",
    ),
}


@pytest.fixture
def project(case, tmp_path, monkeypatch, archive_server, unprivileged):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(workers, "SECONDS_IN_PROCESS", 1000)
    monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
    monkeypatch.setattr(fetch, "BACKOFF", 0)
    monkeypatch.setattr(fetch, "ATTEMPTS", 2)
    project = Project(case.source, archive_server, unprivileged)
    yield project
    project.patch.undo()


def run(stage, limit=None):
    """Run a stage as from the command line; returns the exit code and the warnings. limit: of a file, in bytes."""
    arguments, (soft, hard) = sys.argv, resource.getrlimit(resource.RLIMIT_FSIZE)
    sys.argv = [f"stages/{stage}.py", STAGES[stage]]
    try:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            runpy.run_path(str(ROOT / f"stages/{stage}.py"), run_name="__main__")
        return 0, [str(warning.message) for warning in warned]
    except SystemExit as ended:
        return ended.code, [str(warning.message) for warning in warned]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.argv = arguments


def run_all(project, capfd, fails=""):
    """Run the stages in order, up to the one that fails; returns its standard error."""
    capfd.readouterr()
    for stage in list(STAGES)[project.source in LOCAL :]:
        project.before.get(stage, lambda: None)()
        code, warned = run(stage, project.limits.get(stage))
        errors = capfd.readouterr().err
        assert not warned
        assert code == (1 if stage == fails else 0), errors
        if stage == fails:
            return errors
        assert errors == ""
    return ""


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_hostile_data_is_excluded_or_reported_in_one_sentence(case, project, capfd):
    case.damage(project)
    errors = run_all(project, capfd, case.stage)
    if case.stage:
        assert_one_sentence(errors, case)
        assert_no_files_left(case)
    else:
        images = read_images("d")
        listed = Path("data/images/d/ignored.csv")
        tables = [images.quarantine, *([pd.read_csv(listed)] if listed.exists() else [])]
        excluded = pd.concat(tables).set_index("name")["reason"].to_dict()
        assert excluded.keys() == case.excluded.keys()
        for name, reason in case.excluded.items():
            assert reason in excluded[name]
        assert set(images.table["name"]) == {printable(name) for name in project.files} - case.excluded.keys()
        task = read_task("t").table
        assert set(task["name"]) == set(images.table["name"])
        assert task.groupby("sha256")["split"].nunique().eq(1).all()
    project.fix()
    assert run_all(project, capfd) == ""
    images = read_images("d")
    assert list(images.table["name"]) == list(GOOD)
    assert images.quarantine.empty
    assert set(read_task("t").table["split"]) == set(SPLITS)
    assert not list(Path("data").rglob(".partial*"))


def assert_one_sentence(errors, case):
    assert errors.startswith(f"{case.stage}: ")
    assert errors.endswith(".\n")
    assert len(errors.splitlines()) == 1
    assert case.message in errors
    assert "Traceback" not in errors


def assert_no_files_left(case):
    """The stage that failed and later stages leave no outputs and no partial files."""
    stages = list(STAGES)
    for stage in stages[stages.index(case.stage) :]:
        assert not [path for path in Path(OUTPUTS[stage]).rglob("*") if not path.is_dir()]
    assert not list(Path().rglob(".partial*"))
    if Path("data/partial").exists():
        assert case.source == "server"
