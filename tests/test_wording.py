"""Counts in messages: a noun is in the plural unless its number is 1."""

import re
from pathlib import Path

import pytest

from stages.core.wording import counted

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (1200, "test image", "1,200 test images"),
        (1.0, "epoch", "1 epoch"),
        (1.4, "epoch", "1 epoch"),  # as it is printed
        (1.6, "epoch", "2 epochs"),
    ],
)
def test_a_count_has_its_noun_in_the_right_number(number, noun, text):
    assert counted(number, noun) == text


NOUNS = "image|model|task|class|fold|repeat|epoch|file|group|view|augmentation|row|pair|problem|core|layer|architecture"
# Constants, numbers that are at least 2, and settings that are not counts.
ALLOWED = ("LARGEST_MATRIX", "FEWEST_IN_BIN", "MIN_IMAGES", "DEEPEST", "{folds} folds", "{summary.folds} folds")
ALLOWED += ("{split} images", "{count} models", "{unused_folds} folds", "{largest} images", "{pairs} pairs")
ALLOWED += ("other models", "{len(metrics)} models", "{len(files)} files", "{key} images", "images/s", "has images")
ALLOWED += ("{network} repeats", "{len(test)} pairs", "{len(evidence.metrics)} models", "{len(small)} classes")
ALLOWED += ("{summary.contradictions} images", "folds // used:,} validation images", "{folds} repeats")


@pytest.mark.parametrize("file", sorted((ROOT / "stages").rglob("*.py")), ids=lambda file: file.stem)
def test_no_message_has_a_plural_behind_a_number_that_may_be_1(file):
    code = file.read_text(encoding="utf-8")
    found = re.findall(rf"(\{{[^{{}}]*\}}(?: [a-z]+)? (?:{NOUNS})e?s\b(?:/s)?)", code)
    assert [text for text in found if not any(allowed in text for allowed in ALLOWED)] == []
