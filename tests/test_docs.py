"""The pages in docs/ tell the truth where they can be asked."""

import copy
import errno
import re
import shutil
from argparse import Namespace
from pathlib import Path
from unittest.mock import MagicMock, Mock

import kagglehub.clients
import keras
import numpy as np
import pandas as pd
import pydantic
import pytest
import requests
import urllib3

from docs import make
from stages import check, features, predict, prepare, split
from stages.artifacts.images import read_images
from stages.artifacts.models import Provenance
from stages.artifacts.tasks import SPLITS, Task
from stages.backbones.building import build_backbone
from stages.backbones.pretrained import load_weights
from stages.config.training import TrainingConfig
from stages.core.errors import UserError
from stages.core.stage import run_stage
from stages.core.yaml import read_yaml
from stages.evaluation import sanity
from stages.evaluation.metrics import SplitPredictions, compute_metrics, split_metrics
from stages.sources import fetch, kaggle
from stages.training import solving, trained_model
from stages.training.batches import Examples
from stages.training.repeats import BuiltModel, train_repeats
from stages.validation.study import SECTIONS, load_study, validate_study
from tests.conftest import plain, png, write_tree
from tests.pipeline import dvc, read_yaml, write_study

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)


SMALLEST = read_yaml(blocks("studies.md", "yaml")[0])


def test_the_page_of_keys_is_made_of_the_classes_that_check_them():
    assert make.page(PAGES["studies.md"]) == PAGES["studies.md"], "`python -m docs.make` writes it anew"


def test_a_key_that_no_docstring_explains_is_an_error():
    class Mute(TrainingConfig):
        """A class that says nothing of its key."""

        riddle: int = 0

    with pytest.raises(LookupError, match="the docstring of Mute does not say what riddle means"):
        make.meaning(Mute, "riddle")


def test_the_smallest_study_is_sound_and_nothing_in_it_can_be_left_out():
    study, problems = validate_study(SMALLEST)
    assert not problems and list(study.models) == ["scratch"]

    def places(value, above=()):
        for key in value:
            yield (*above, key)
            if isinstance(value[key], dict):
                yield from places(value[key], (*above, key))

    for *above, key in places(SMALLEST):
        less = copy.deepcopy(SMALLEST)
        within = less
        for each in above:
            within = within[each]
        del within[key]
        assert validate_study(less)[1], (above, key)


def test_the_strategies_are_one_study_that_is_sound_after_each_example():
    shared, *examples = map(read_yaml, blocks("strategies.md", "yaml"))
    study = {"networks": {}, **shared}
    for example in examples:
        for section, entries in example.items():
            assert not set(entries) & set(study[section])
            study[section] = study[section] | entries
        assert validate_study(study)[1] == []
    assert len(validate_study(study)[0].models) > 10


@pytest.mark.parametrize("page", ["data.md", "gpu.md"])
def test_the_entries_of_the_other_pages_are_sound(page):
    examples = [read_yaml(block) for block in blocks(page, "yaml")]
    assert examples
    for example in examples:
        training = example.pop("training", {})
        pydantic.TypeAdapter(TrainingConfig).validate_python({**SMALLEST["training"], **training}, strict=True)
        for section, entries in example.items():
            for entry in entries.values():
                pydantic.TypeAdapter(SECTIONS[section]).validate_python(entry, strict=True)


def anchors(text: str) -> set[str]:
    """The names by which GitHub links to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_something(page):
    folder = ROOT if (ROOT / page).exists() else ROOT / "docs"
    text = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = folder / path if path else folder / page
            assert target.exists(), link
            if anchor and target.suffix == ".md":
                there = target.read_text(encoding="utf-8")
                assert anchor in anchors(there) or f'<a id="{anchor}">' in there, link


def test_the_page_of_the_architecture_names_every_package_and_every_stage():
    page = PAGES["architecture.md"]
    packages = {f"stages/{path.parent.name}" for path in (ROOT / "stages").glob("*/__init__.py")}
    assert {package for package in packages if f"| `{package}` |" not in page} == set()
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    assert [stage for stage in stages if f"`{stage}`" not in page] == []


# What trips the errors that docs/troubleshooting.md quotes; each returns what the user is told.


def refused(work, *arguments) -> str:
    with pytest.raises(UserError) as error:
        work(*arguments)
    return str(error.value)


def changed(changes: dict) -> dict:
    """The smallest study with changes: section -> entry -> key -> value, None for a section that is left out."""
    study = copy.deepcopy(SMALLEST)
    for section, entries in changes.items():
        for name, entry in (entries or {}).items():
            study[section][name] = study[section].get(name, {}) | entry
        if entries is None:
            del study[section]
    return study


def of_study(**changes) -> str:
    (problem,) = validate_study(changed(changes))[1]
    return problem


def of_dvc() -> str:
    """What DVC itself says to a study without a section."""
    write_tree(".dvc", {"config": b"[core]\n    no_scm = True\n"})
    shutil.copy(ROOT / "dvc.yaml", ".")
    write_study(Path(), changed({"heads": None}))
    return dvc(Path(), "repro", fails=True).stderr


def of_text(text: str) -> str:
    Path("params.yaml").write_text(text)
    return refused(read_yaml, Path("params.yaml"))


def of_check() -> str:
    folder = {"source": "folder", "path": "my_images", "image_size": 16}
    write_study(Path(), changed({"folders": {"photos": folder}}))
    return refused(check.main, [])


def of_images(files: dict[str, bytes], **task) -> str:
    """What the stages from images to split say to a folder of pictures."""
    write_tree("my_images", files)
    folder = {"source": "folder", "path": "my_images", "image_size": 16}
    kinds = {"dataset": "photos", "validation": 0.2, "test": 0.2, **task}
    study, problems = validate_study(changed({"folders": {"photos": folder}, "tasks": {"kinds": kinds}}))
    assert not problems

    def work():
        prepare.main(study, "photos")
        split.main(study, "kinds")

    return refused(work)


def pictures(**counts) -> dict[str, bytes]:
    """So many different pictures of each class."""
    random = np.random.default_rng(0)
    return {
        f"{name}/{number}.png": png(random.integers(0, 256, (8, 8, 3), np.uint8))
        for name, count in counts.items()
        for number in range(count)
    }


def of_download() -> str:
    nobody = requests.ConnectionError(urllib3.exceptions.NewConnectionError(None, "refused"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.Session, "get", Mock(side_effect=nobody))
        return refused(fetch.fetch, "https://example.com/photos.zip", Path("photos.zip"), f"sha256:{'0' * 64}")


def of_copy(checksum: str | None = None) -> str:
    """What is said to a file of 2.3 MB where 1.2 MB are free, or, with a checksum, to one that has another."""
    Path("photos.zip").write_bytes(bytes(2_300_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch.shutil, "disk_usage", lambda _: Mock(free=10**9 if checksum else 1_200_000))
        return refused(fetch.fetch, "photos.zip", Path("data/raw/photos.zip"), checksum)


def of_kaggle() -> str:
    client = MagicMock()
    answer = requests.HTTPError(response=Mock(status_code=403, reason="Forbidden"))
    client.datasets.dataset_api_client.download_dataset.side_effect = answer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kagglehub.clients, "build_kaggle_client", lambda: client)
        return refused(kaggle.fetch_kaggle, "owner/birds", 2, Path("data/raw/birds.zip"))


SETTINGS = TrainingConfig(**SMALLEST["training"] | {"repeats": 1})
ORIGIN = Provenance(kind="head", task="t", backbone="b", weights_sha256=None)


def of_training() -> str:
    rows = np.arange(4)
    examples = Examples(np.ones((4, 2), np.float32), rows, rows.astype(np.int32) % 2, rows, 2)
    parts = dict.fromkeys(SPLITS, examples)

    def build(l2: float) -> BuiltModel:
        output = keras.layers.Dense(2, "softmax", kernel_initializer=keras.initializers.Constant(np.nan))
        model = keras.Sequential([keras.Input((2,)), output])
        return BuiltModel(model, model)

    return refused(train_repeats, "scratch", build, [(SETTINGS, 0.0)], parts, examples, 0, ORIGIN, None)


def of_activation(value: float) -> str:
    found = np.array([[value]], np.float32)
    with np.errstate(over="ignore"):
        return refused(features.check, found.astype(np.float16), found, "features.top")


def of_ridge() -> str:
    rows = np.arange(30_000)
    array = np.broadcast_to(np.float32(0), (30_000, 7, 7, 512))  # VGG16's last activations of images of 224 pixels
    examples = Examples(array, rows, rows.astype(np.int32) % 2, rows, 2)
    parts = dict.fromkeys(SPLITS, examples)
    return refused(solving.solve_head, "probe", None, [1.0], parts, examples, (0, 1), SETTINGS, ORIGIN)


def of_weights() -> str:
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save_weights("mine.weights.h5")
    return refused(load_weights, build_backbone("four_conv", 16), Path("mine.weights.h5"), "backbones.mine.weights")


def of_damage(*files: str) -> str:
    """What is said to prepared images of which these files are there, and damaged."""
    for file in files:
        path = Path("data/images/photos", file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return refused(read_images, "photos")


def of_other_images() -> str:
    task = Task("kinds", "photos", ["cat", "dog"], "some", pd.DataFrame())
    return refused(task.check_images, "others", "data/features/top")


def of_full_disk(capsys) -> str:
    write_study(Path(), SMALLEST)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("sys.argv", ["prepare.py"])
        run_stage(Mock(side_effect=OSError(errno.ENOSPC, "No space left on device", "data/images")))
    return capsys.readouterr().err.strip()


def answers(right: int, repeats: int = 1) -> SplitPredictions:
    """Of a hundred images of two classes so many are answered rightly, by every repeat."""
    labels = np.arange(100) % 2
    predicted = np.where(np.arange(100) < right, labels, 1 - labels)
    return SplitPredictions(
        labels, np.tile(np.eye(2, dtype=np.float32)[predicted] * 0.8 + 0.1, (repeats, 1, 1)), np.arange(100)
    )


def of_report(validation: SplitPredictions, test: SplitPredictions) -> str:
    """The warnings of a model of which there are these answers."""
    found = {"train": validation, "validation": validation, "test": test}
    metrics = {split: split_metrics(each, compute_metrics(each)) for split, each in found.items()}
    history = pd.DataFrame({"repeat": range(len(test.probabilities)), "epoch": 1, "validation_loss": 0.1})
    return "\n".join(sanity.warnings_of("b-scratch", ["cat", "dog"], found, metrics, history, 0, 0))


def of_divergence() -> str:
    test = answers(80, repeats=2)
    test.probabilities[1] = np.nan
    return of_report(answers(80, repeats=2), test)


def of_one_class() -> str:
    always = SplitPredictions(np.arange(100) % 2, np.tile(np.float32([0.9, 0.1]), (1, 100, 1)), np.arange(100))
    return of_report(always, always)


def of_predict(capsys) -> str:
    Path("notes.txt").write_text("no image")
    given = Namespace(images=[Path("notes.txt")], model="frozen", top=1, format="text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained_model, "load_model", lambda *_: Mock(image_size=8, resize="crop"))
        assert predict.main(None, given) == 1
    return capsys.readouterr().err.strip()


ASKED = {
    "a missing section": lambda: of_study(heads=None),
    "a missing section, asked of DVC": of_dvc,
    "a name": lambda: of_study(heads={"B_fc1": {}}),
    "an unknown key": lambda: of_study(networks={"scratch": {"epoch": 3}}),
    "a value": lambda: of_study(networks={"scratch": {"learning_rate": -1}}),
    "a dangling name": lambda: of_study(networks={"scratch": {"task": "ten-digit"}}),
    "a layer": lambda: of_study(networks={"scratch": {"cut": "conv5"}}),
    "small images": lambda: of_study(
        datasets={"digits": {"image_size": 8}}, backbones={"untrained": {"architecture": "simple_cnn"}}
    ),
    "weights without checksum": lambda: of_study(backbones={"untrained": {"weights": "vgg16.h5"}}),
    "no YAML": lambda: of_text("seed: 0\ndatasets: : x\n"),
    "no folder": of_check,
    "no class folders": lambda: of_images({"1.png": png(plain(1))}),
    "class folders in two places": lambda: of_images({"a/cat/1.png": png(plain(1)), "cat/1.png": png(plain(2))}),
    "unreadable files": lambda: of_images(pictures(cat=3, dog=3) | {"cat/0.png": b"", "cat/1.png": b"text"}),
    "a small class": lambda: of_images(pictures(cat=3, dog=20)),
    "a group": lambda: of_images(pictures(cat=3, dog=3), group=r"patient\d+"),
    "a published side": lambda: of_images(pictures(cat=9, dog=9), test="published"),
    "letter case": lambda: of_images(pictures(Cat=9, cat=9)),
    "no connection": of_download,
    "another checksum": lambda: of_copy(f"sha256:{'0' * 64}"),
    "Kaggle": of_kaggle,
    "no room": of_copy,
    "a loss that is no number": of_training,
    "a large activation": lambda: of_activation(70_000),
    "an activation that is no number": lambda: of_activation(np.nan),
    "many features": of_ridge,
    "other weights": of_weights,
    "a missing file": of_damage,
    "a damaged file": lambda: of_damage("record.json", "images.npy"),
    "other images": of_other_images,
    "a full disk": of_full_disk,
    "chance": lambda: of_report(answers(52), answers(52)),
    "validation far from test": lambda: of_report(answers(95), answers(70)),
    "divergence": of_divergence,
    "a class that is never named": of_one_class,
    "an unknown model": lambda: refused(trained_model.load_model, load_study(ROOT / "params.yaml"), "b-two-layer"),
    "no image": of_predict,
}


QUOTED = list(zip(blocks("troubleshooting.md", "text"), ASKED, strict=True))


@pytest.mark.parametrize(("quoted", "name"), QUOTED, ids=ASKED)
def test_an_error_is_answered_as_the_page_says(quoted, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ask = ASKED[name]
    said = ask(capsys) if ask in (of_full_disk, of_predict) else ask()
    pattern = ".*".join(re.escape(part) for part in quoted.strip().split("..."))
    assert any(re.fullmatch(pattern, line.strip()) for line in said.splitlines()), said
