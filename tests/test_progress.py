"""Long work says how far it is: a bar in a terminal, a line every 30 seconds elsewhere."""

import time

import numpy as np
import pytest

from stages.core import progress
from stages.core.progress import Progress
from stages.sources.source_image import SourceImage
from stages.sources.writing import write_images
from tests.conftest import plain, png


def wait_for(capsys, number: int) -> list[str]:
    """The first lines on standard error, as soon as there are so many."""
    printed, end = "", time.monotonic() + 60
    while printed.count("\n") < number and time.monotonic() < end:
        time.sleep(0.01)
        printed += capsys.readouterr().err
    return printed.splitlines()


@pytest.mark.parametrize(
    ("work", "updates", "line"),
    [
        (
            Progress("b-scratch 1/3", "epoch", 60),
            [(12, {"train_loss": 0.5, "validation_loss": 0.625})],
            "b-scratch 1/3: 12 of 60 epochs, train_loss 0.500, validation_loss 0.625, about 00:40 left",
        ),
        (Progress("features.top", "image", 4000), [(1000, {}), (1000, {})], "2,000 of 4,000 images, about 00:10 left"),
        (Progress("prepare photos", "image", initial=5), [(15, {})], "prepare photos: 20 images, 00:10 so far"),
        (Progress("a.zip", "B", 3_000_000, 2_000_000), [(500_000, {})], "a.zip: 2.50MB of 3.00MB, about 00:10 left"),
        (Progress("slow", "epoch", 3), [], "slow: 0 of 3 epochs, 00:10 so far"),
        (Progress("short", "epoch", 1), [], "short: 0 of 1 epoch, 00:10 so far"),
        (Progress("a.zip", "B"), [(2_000, {})], "a.zip: 2.00kB, 00:10 so far"),
    ],
)
def test_a_line_has_what_is_done_and_the_time_left(work, updates, line):
    work.start = time.monotonic() - 10.2  # seconds; the digits are rounded down
    for number, figures in updates:
        work.update(number, **figures)
    assert work.line().endswith(line)


def test_a_resumed_training_is_timed_from_where_it_resumed():
    work = Progress("net 1/1", "epoch", 60)
    work.resume(50)
    work.update(5)
    work.start = time.monotonic() - 10.2
    assert work.line() == "net 1/1: 55 of 60 epochs, about 00:10 left"


def test_without_a_terminal_lines_are_printed_until_the_work_ends(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0.01)
    with Progress("net 1/1", "epoch", 2) as work:
        assert wait_for(capsys, 2)[1].startswith("net 1/1: 0 of 2 epochs, ")  # also within an epoch
        work.update(1, train_loss=0.25)
        assert "1 of 2 epochs, train_loss 0.250, about " in wait_for(capsys, 3)[2]
    work._thread.join(60)
    capsys.readouterr()
    time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_short_work_prints_no_line(capsys):
    with Progress("net 1/1", "epoch", 2) as work:
        work.update(2)
    assert capsys.readouterr().err == ""


def test_in_a_terminal_a_bar_is_drawn(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Progress("net 1/1", "epoch", 2) as work:
        work.update(2, train_loss=0.25)
    printed = capsys.readouterr().err
    assert "net 1/1: 100%" in printed and "2/2" in printed and "train_loss=0.250" in printed


def test_preparing_images_prints_lines_and_writes_the_same_files(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0.01)

    def slow():
        time.sleep(0.2)
        return png(plain((1, 2, 3)))

    write_images("d", [SourceImage(f"{number}.png", "a", slow) for number in range(3)], 8, 0.0)
    assert "prepare d: 1 image, " in capsys.readouterr().err
    assert np.load("data/images/d/images.npy").shape == (3, 8, 8, 3)
