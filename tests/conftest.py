"""Fixtures and helpers that several tests share: image files, archives, and the tiny study."""

import gc
import io
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings
from PIL import Image

from stages.core import measurement
from tests import pipeline
from tests.tiny_study import ORDER, run

if os.name == "posix":
    from tests import forked_python

    pipeline.programs = forked_python.programs

# On a busy machine an example may take long. Each run tries other examples.
settings.register_profile("of this project", deadline=None, max_examples=50)
settings.load_profile("of this project")

# Models are measured with the fewest runs, which saves a second or two for each.
measurement.SHORTEST = measurement.LONGEST = 0

# The longest files start first, so that both processes end at about the same time. Only one process runs the study of
# the fixture `ran`; so that the other does not wait for it, files that need it do not follow each other.
FIRST = [
    "test_end_to_end.py", "test_interruption.py", "test_mixed_backbones.py", "test_real_photographs.py",
    "test_experiments.py", "test_using.py", "test_settings.py", "test_training.py", "test_networks.py",
    "test_real_sources.py", "test_presets.py", "test_architecture.py",
    "test_statistics.py", "test_recommend.py", "test_memory.py",
]  # fmt: skip


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


@pytest.fixture(scope="module", autouse=True)
def freeze_imported_modules():
    """Exclude loaded modules from garbage collection, which statsmodels starts in each call."""
    gc.collect()
    gc.freeze()


def encode(pixels, form="PNG", **options):
    """The bytes of an image file with these pixels."""
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, form, **options)
    return file.getvalue()


def png(pixels):
    return encode(pixels)


def plain(color, side=8):
    """A picture of one color, (side, side, 3) uint8."""
    return np.full((side, side, 3), color, np.uint8)


def png_of_size(width, height):
    """A PNG file of a few bytes that claims to be so large."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def write_tree(folder, files):
    """Make a folder that holds only `files` (name -> bytes; a name that ends with / is an empty folder)."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(content)
    return folder


@pytest.fixture
def unprivileged(tmp_path):
    """A function that gives up root's rights until the test ends, so that permissions apply."""
    modes = {}

    def give_up():
        if os.geteuid() != 0:
            return
        nobody = 65534
        for path in [tmp_path, *tmp_path.rglob("*")]:
            os.chown(path, nobody, nobody, follow_symlinks=False)
        for path in tmp_path.parents:
            mode = path.stat().st_mode
            if mode & 0o011 != 0o011:  # the group is still root's
                modes[path] = mode
                path.chmod(mode | 0o011)
        Image.init()  # it loads modules on demand, which `nobody` may not be allowed to read
        os.seteuid(nobody)
        try:
            (Path(__file__).parents[1] / "stages/prepare.py").read_bytes()
        except OSError:
            pytest.skip("only root may read the code")

    yield give_up
    os.seteuid(os.getuid())
    for path, mode in modes.items():
        path.chmod(mode)


def write_archive(path, files):
    """Write a zip or tar archive of `files` (name -> bytes), as the suffix of the path says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, f"w:{path.suffix[1:].removesuffix('tar')}") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
                archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(scope="session")
def ran(tmp_path_factory, worker_id):
    """A folder in which the tiny study has run, once for all processes of the tests; tests work in copies of it."""
    base = tmp_path_factory.getbasetemp()
    finished = (base if worker_id == "master" else base.parent) / "finished-study"
    with FileLock(finished.with_suffix(".lock")):
        if not finished.exists():
            folder = tmp_path_factory.mktemp("study")
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                for stage, entry in ORDER:
                    run(stage, entry)
            folder.rename(finished)
    return finished


@pytest.fixture
def here(ran, tmp_path, monkeypatch):
    """A copy of that folder to work in."""
    shutil.copytree(ran, tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")
