"""Sources of images and the arrays prepared of them."""

import contextlib
import hashlib
import io
import json
import struct
import tarfile
import unicodedata
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from stages import download, prepare
from stages.base.errors import UserError
from stages.base.files import sha256_of
from stages.data.images import read_images
from stages.sources import readers
from stages.sources.decoding import decode, write_images
from stages.sources.readers import SourceImage
from stages.study.schema import Archive, Digits
from tests.conftest import encode, plain, png, write_archive

FLOWERS = Path(__file__).parents[1].parent / "shared" / "data" / "flowers.zip"
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def study(**datasets):
    return SimpleNamespace(datasets=datasets)


def archive_of(path, files, **settings):
    """An archive of `files` beside the project, as a dataset of 8x8 images."""
    write_archive(Path(path), files)
    return Archive(source="archive", image_size=8, url=path, sha256=sha256_of(Path(path)), **settings)


def prepared(dataset):
    download.main(study(d=dataset), "d")
    prepare.main(study(d=dataset), "d")
    return read_images("d")


def source_of(*contents):
    return [SourceImage(f"{place}.png", "a", lambda content=content: content) for place, content in enumerate(contents)]


def quarantine():
    return pd.read_csv("data/images/d/quarantine.csv", index_col="name")


def all_files():
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


# Archives.


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz"])
@pytest.mark.parametrize("top", ["", "photos/", "photos/all/"])
def test_the_folder_of_a_file_is_its_class(name, top):
    files = {
        f"{top}red/1.png": png(plain(RED)),
        f"{top}blue/1.png": png(plain(BLUE)),
        f"{top}blue/2.png": png(plain(BLUE)),
    }
    images = prepared(archive_of(name, files))
    assert images.classes == ["blue", "red"]
    assert sorted(zip(images.table["class"], images.table["label"], images.table["name"], strict=True)) == [
        ("blue", 0, f"{top}blue/1.png"),
        ("blue", 0, f"{top}blue/2.png"),
        ("red", 1, f"{top}red/1.png"),
    ]
    colours = {"red": RED, "blue": BLUE}
    for row in images.table.itertuples():
        assert np.array_equal(images.pixels[row.index], plain(colours[images.classes[row.label]]))


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_what_operating_systems_leave_behind_is_no_image(name):
    files = {
        "a/1.png": png(plain(RED)),
        "a/.DS_Store": b"x",
        "a/._1.png": b"x",
        ".hidden/1.png": b"x",
        "__MACOSX/a/1.png": b"x",
        "../outside/1.png": b"x",
        "README": b"x",
    }
    images = prepared(archive_of(name, files))
    assert list(images.table["name"]) == ["a/1.png"]
    assert quarantine().empty


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_class_name_may_be_written_in_any_letters(name):
    decomposed = unicodedata.normalize("NFD", "Gänseblümchen")  # as macOS writes it
    images = prepared(archive_of(name, {"花/1.png": png(plain(RED)), f"{decomposed}/1.png": png(plain(BLUE))}))
    assert images.classes == ["Gänseblümchen", "花"]


def test_a_class_may_be_called_as_pandas_calls_nothing():
    images = prepared(archive_of("a.zip", {"NA/null.png": png(plain(RED)), "nan/1.png": png(plain(RED))}))
    assert list(images.table["class"]) == ["NA", "nan"]
    assert images.classes == ["NA", "nan"]


def test_a_compressed_tar_is_read_in_its_own_order():
    """Each step back would unpack it from its beginning again."""
    files = {f"a/{number}.png": png(plain(number)) for number in (5, 3, 9, 1)}
    images = prepared(archive_of("a.tar.gz", files))
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
    ],
)
def test_a_damaged_archive_is_answered_in_a_sentence(name, damage, sentence):
    write_archive(Path(name), {f"a/{number}.png": png(NOISE) for number in range(9)})
    Path(name).write_bytes(damage(Path(name).read_bytes()))
    dataset = Archive(source="archive", image_size=8, url=name, sha256=sha256_of(Path(name)))
    with pytest.raises(UserError, match=f"^'{name}' {sentence}.*\\.$"):
        prepared(dataset)
    assert not list(Path("data/images").iterdir())


def test_an_archive_without_class_folders_is_answered_in_a_sentence():
    with pytest.raises(UserError, match="holds no <class>/<image> files; put the images of each class in a folder"):
        prepared(archive_of("a.zip", {"1.png": png(plain(RED))}))


def test_an_archive_with_another_checksum_is_not_kept():
    write_archive(Path("a.zip"), {"a/1.png": png(plain(RED))})
    with pytest.raises(UserError, match="is not the file expected"):
        prepared(Archive(source="archive", image_size=8, url="a.zip", sha256="0" * 64))
    assert not any(path.is_file() for path in Path("data/raw").rglob("*"))


# Files that are no image.


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"Dear photographer", "the file is no image of a known format"),
        (encode(NOISE, "JPEG")[:500], "Truncated File Read"),
        (encode(NOISE, "JPEG")[:1000], "image file is truncated"),
        (png(NOISE)[:500], "image file is truncated"),
        (png(NOISE)[:200] + bytes(300) + png(NOISE)[500:], "broken"),
    ],
)
def test_a_file_that_is_no_image_is_left_out_with_the_reason(content, reason):
    said = write_images("d", source_of(png(plain(RED)), content, png(plain(BLUE))), 8, max_unreadable=0.5)
    assert said == "2 images of 1 classes, 8x8, 1 unreadable left out"
    assert list(quarantine().index) == ["1.png"]
    assert reason in quarantine().loc["1.png", "reason"]
    images = read_images("d")
    assert list(images.table["name"]) == ["0.png", "2.png"]
    assert np.array_equal(images.pixels, [plain(RED), plain(BLUE)])


def png_of_size(width, height):
    """A PNG file of a few bytes that claims to be so large."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 20_000])  # Pillow warns of the one and refuses the other
def test_a_decompression_bomb_is_left_out(side):
    write_images("d", source_of(png(plain(RED)), png_of_size(side, side)), 8, max_unreadable=0.5)
    assert "decompression bomb" in quarantine().loc["1.png", "reason"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_file_too_large_for_an_image_is_not_unpacked(name, monkeypatch):
    monkeypatch.setattr(readers, "LARGEST_FILE", 1000)
    files = {"a/1.png": png(plain(RED)), "a/2.png": bytes(1001)}
    prepared(archive_of(name, files, max_unreadable=0.5))
    assert quarantine().loc["a/2.png", "reason"] == "unpacks to 1,001 bytes, more than 1,000"


def test_a_file_damaged_in_its_zip_is_left_out():
    files = {"a/1.png": png(plain(RED)), "a/2.png": b"these bytes change"}
    write_archive(Path("a.zip"), files)
    Path("a.zip").write_bytes(Path("a.zip").read_bytes().replace(b"bytes change", b"bytes CHANGE"))
    prepared(Archive(source="archive", image_size=8, url="a.zip", sha256=sha256_of(Path("a.zip")), max_unreadable=0.5))
    assert "Bad CRC-32" in quarantine().loc["a/2.png", "reason"]


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, struct.error, IndexError])
def test_whatever_a_decoder_raises_the_file_is_left_out(error, monkeypatch):
    def broken():
        raise error("broken inside")

    write_images("d", [*source_of(png(plain(RED))), SourceImage("b.png", "a", broken)], 8, max_unreadable=0.5)
    assert quarantine().loc["b.png", "reason"] == "broken inside"


def test_too_many_unreadable_files_are_an_error_and_leave_nothing():
    contents = [png(plain(RED))] * 8 + [b"", b"text"]
    with pytest.raises(UserError) as error:
        write_images("d", source_of(*contents), 8, max_unreadable=0.1)
    assert str(error.value) == (
        "datasets.d: 2 of 10 files are no readable image, more than max_unreadable 10.0% (8.png: the file is empty; "
        "9.png: the file is no image of a known format); mend or remove them, or raise max_unreadable."
    )
    assert not list(Path("data/images").iterdir())
    write_images("d", source_of(*contents), 8, max_unreadable=0.2)  # exactly the share is accepted


def test_an_error_without_words_is_listed_by_its_name():
    def broken():
        raise EOFError

    write_images("d", [*source_of(png(plain(RED))), SourceImage("b.png", "a", broken)], 8, max_unreadable=0.5)
    assert quarantine().loc["b.png", "reason"] == "EOFError"


def test_a_machine_without_memory_is_not_the_fault_of_an_image():
    def too_large():
        raise MemoryError

    with pytest.raises(MemoryError):
        write_images("d", [SourceImage("b.png", "a", too_large)], 8, max_unreadable=0.5)
    assert not list(Path("data/images").iterdir())


def test_images_prepared_before_outlive_an_error():
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
        (png(plain(100)[:, :, 0]), (100, 100, 100)),
        (png(np.full((8, 8), 0x80FF, np.uint16)), (128, 128, 128)),
        (encode(np.full((8, 8), 0x80FF, np.uint16), "TIFF"), (128, 128, 128)),
        (encode(Image.new("1", (8, 8), 1)), (255, 255, 255)),
        (encode(Image.fromarray(plain(GREEN)).convert("P")), GREEN),
        (encode(Image.fromarray(plain(GREEN)).quantize(2), "GIF"), GREEN),
        (encode(Image.new("RGBA", (8, 8), (*BLUE, 255))), BLUE),
        (encode(Image.new("RGBA", (8, 8), (*BLUE, 0))), (255, 255, 255)),
        (encode(Image.new("RGBA", (8, 8), (0, 0, 0, 51))), (204, 204, 204)),
        (encode(Image.new("LA", (8, 8), (0, 0))), (255, 255, 255)),
        (encode(Image.new("P", (8, 8), 0), transparency=0), (255, 255, 255)),
        (encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), RED),
    ],
    ids=[
        "RGB",
        "grey",
        "16-bit PNG",
        "16-bit TIFF",
        "1-bit",
        "palette",
        "GIF",
        "opaque",
        "transparent",
        "half transparent",
        "transparent grey",
        "transparent palette",
        "CMYK TIFF",
    ],
)
def test_every_kind_of_pixel_becomes_rgb(content, pixel):
    decoded = decode(content, 8).pixels
    assert (decoded.shape, decoded.dtype) == ((8, 8, 3), np.uint8)
    assert np.array_equal(decoded, plain(pixel))


def test_a_cmyk_jpeg_becomes_rgb():
    content = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert np.abs(decode(content, 8).pixels.astype(int) - RED).max() <= 3


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
def test_an_image_is_turned_upright(orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode(encode(NOISE, exif=exif), 32).pixels, upright(NOISE))


def test_a_jpeg_from_a_camera_held_upright_is_turned():
    stored = np.concatenate([np.full((32, 16, 3), 255, np.uint8), np.zeros((32, 16, 3), np.uint8)], axis=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(encode(stored, "JPEG", exif=exif), 32).pixels
    assert decoded[:12].min() > 240
    assert decoded[20:].max() < 15


def test_an_image_is_cropped_to_its_middle_square():
    wide = np.concatenate([plain(RED), plain(GREEN), plain(BLUE)], axis=1)
    assert np.array_equal(decode(png(wide), 8).pixels, plain(GREEN))
    assert np.array_equal(decode(png(wide.swapaxes(0, 1)), 8).pixels, plain(GREEN))
    assert np.array_equal(decode(png(plain(RED, side=50)), 8).pixels, plain(RED))


# Prepared images.


def test_prepared_images_are_one_array_with_a_table_beside():
    files = {"b/1.png": png(plain(RED)), "a/1.png": png(plain(GREEN)), "a/2.png": b"text"}
    prepared(archive_of("a.zip", files, max_unreadable=0.5))
    folder = Path("data/images/d")
    assert sorted(path.name for path in folder.iterdir()) == [
        "images.npy",
        "quarantine.csv",
        "record.json",
        "table.csv",
    ]
    pixels = np.load(folder / "images.npy", allow_pickle=False)
    assert (pixels.shape, pixels.dtype) == ((2, 8, 8, 3), np.uint8)
    green, red = (hashlib.sha256(b"8x8" + plain(colour).tobytes()).hexdigest() for colour in (GREEN, RED))
    assert (folder / "table.csv").read_text() == (
        f"index,label,class,sha256,name\n0,0,a,{green},a/1.png\n1,1,b,{red},b/1.png\n"
    )
    assert (folder / "quarantine.csv").read_text() == (
        "name,class,reason\na/2.png,a,the file is no image of a known format\n"
    )
    assert json.loads((folder / "record.json").read_text()) == {
        "images": 2,
        "image_size": 8,
        "classes": ["a", "b"],
        "images_sha256": sha256_of(folder / "images.npy"),
    }


def test_equal_input_gives_equal_bytes():
    files = {f"{'ab'[place % 2]}/{place}.png": png(plain(place)) for place in range(9)} | {"a/x.png": b"text"}
    dataset = archive_of("a.tar.gz", files, max_unreadable=0.5)
    prepared(dataset)
    first = all_files()
    prepared(dataset)
    assert all_files() == first


def test_the_checksum_of_an_image_does_not_depend_on_the_size_it_is_brought_to():
    content = encode(NOISE, "JPEG")
    assert decode(content, 8).sha256 == decode(content, 16).sha256 != decode(encode(NOISE[::-1], "JPEG"), 8).sha256


def test_names_that_are_no_utf8_can_be_written():
    with tarfile.open("old.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name in ("k\u00e4fer/1.png", "wespe/1.png"):
            info = tarfile.TarInfo(name)
            info.size = len(content := png(plain(RED)))
            archive.addfile(info, io.BytesIO(content))
    prepared(Archive(source="archive", image_size=8, url="old.tar", sha256=sha256_of(Path("old.tar"))))
    assert read_images("d").classes == ["k\\xe4fer", "wespe"]


@pytest.mark.parametrize("damage", ["shorten", "remove", "swap", "table", "record"])
def test_damaged_images_are_answered_with_the_way_out(damage):
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
    sentence = r"data/images/d(/images\.npy is missing; .*| is damaged .*; delete it and run `dvc repro`)\.$"
    with pytest.raises(UserError, match=sentence):
        read_images("d")


def test_images_that_are_missing_are_answered_with_the_way_out():
    with pytest.raises(UserError, match=r"data/images/d/record\.json is missing; `dvc repro` makes it\.$"):
        read_images("d")


# Real images.


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    with contextlib.chdir(tmp_path_factory.mktemp("digits")):
        return prepared(Digits(source="digits", image_size=8))


def test_the_digits_are_those_of_scikit_learn(digits):
    known = load_digits()
    assert digits.classes == list("0123456789")
    assert digits.pixels.shape == (1797, 8, 8, 3)
    assert np.array_equal(digits.table["label"], known.target)
    expected = np.rint(known.images * 255 / 16).astype(np.uint8)
    assert np.array_equal(digits.pixels, np.repeat(expected[..., None], 3, axis=-1))


@pytest.mark.skipif(not FLOWERS.exists(), reason="the photos of ../shared/data/flowers.zip are not here")
def test_real_photos_are_all_read():
    dataset = Archive(source="archive", image_size=32, url=str(FLOWERS), sha256=sha256_of(FLOWERS))
    images = prepared(dataset)
    assert images.table["class"].value_counts().to_dict() == dict.fromkeys(
        ["daisy", "dandelion", "roses", "sunflowers", "tulips"], 100
    )
    assert images.pixels.shape == (500, 32, 32, 3)
    assert quarantine().empty
    assert 20 < images.pixels.std() < 100  # pictures, not blanks
