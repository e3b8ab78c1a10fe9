"""The pages in docs/ have valid examples, working links and real error messages."""

import contextlib
import copy
import errno
import importlib
import io
import json
import re
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from unittest.mock import Mock

import huggingface_hub
import kagglehub
import keras
import numpy as np
import pandas as pd
import pydantic
import pytest
import requests
import urllib3

from docs import make
from stages import check
from stages.artifacts.models import ModelResult
from stages.artifacts.tasks import SPLITS, Task, read_task
from stages.backbones.building import build_backbone
from stages.backbones.image_processors import transformers_pixels
from stages.backbones.preset_formats import transformers_config
from stages.backbones.pretrained import load_weights
from stages.backbones.tuning import tune
from stages.config.training import TrainingConfig
from stages.core.errors import UserError
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.core.yaml import read_yaml
from stages.evaluation.metrics import compute_metrics, split_metrics
from stages.evaluation.predictions import SplitPredictions
from stages.evaluation.sanity import model_warnings
from stages.sources import fetch
from stages.sources.preset_files import preset_folder
from stages.splitting.summary import split_warnings
from stages.training import full_model
from stages.training.batches import Examples
from stages.training.probe_repeats import check_size
from stages.training.repeats import train_repeats
from stages.training.specification import BuiltModel, ModelDescription, TrainingData, TrainingSpec
from stages.validation.study import SECTIONS, validate_study
from tests import pipeline
from tests.conftest import plain, png, write_tree
from tests.example_results import make_cost, model_record, split_predictions

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)


SMALLEST = pipeline.read_yaml(blocks("studies.md", "yaml")[0])


@pytest.mark.parametrize("name", make.CONTENTS)
def test_the_tables_are_up_to_date(name):
    assert make.page(name, PAGES[name]) == PAGES[name], "run `python -m docs.make`"


def test_a_key_without_an_explanation_is_an_error():
    class Undocumented(TrainingConfig):
        """A class whose docstring does not explain its key."""

        riddle: int = 0

    with pytest.raises(LookupError, match="riddle"):
        make.meaning(Undocumented, "riddle")


def paths(content: dict, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all keys of nested mappings."""
    nested = [path for key, value in content.items() if isinstance(value, dict) for path in paths(value, (*above, key))]
    return [(*above, key) for key in content] + nested


def test_the_smallest_study_is_valid():
    study, problems = validate_study(SMALLEST)
    assert not problems and list(study.models) == ["scratch"]


@pytest.mark.parametrize("path", paths(SMALLEST), ids=".".join)
def test_every_line_of_the_smallest_study_is_required(path):
    *above, key = path
    study = copy.deepcopy(SMALLEST)
    mapping = study
    for name in above:
        mapping = mapping[name]
    del mapping[key]
    assert validate_study(study)[1]


def test_the_examples_of_the_strategies_form_one_valid_study():
    shared, *examples = map(pipeline.read_yaml, blocks("strategies.md", "yaml"))
    study = {"networks": {}, **shared}
    for example in examples:
        for section, entries in example.items():
            assert not set(entries) & set(study[section])
            study[section] = study[section] | entries
        assert validate_study(study)[1] == []
    assert len(validate_study(study)[0].models) > 10


@pytest.mark.parametrize("page", ["data.md", "gpu.md"])
def test_the_example_entries_of_other_pages_are_valid(page):
    examples = [pipeline.read_yaml(block) for block in blocks(page, "yaml")]
    assert examples
    for example in examples:
        training = example.pop("training", {})
        pydantic.TypeAdapter(TrainingConfig).validate_python({**SMALLEST["training"], **training}, strict=True)
        for section, entries in example.items():
            for entry in entries.values():
                pydantic.TypeAdapter(SECTIONS[section]).validate_python(entry, strict=True)


ABBREVIATIONS = {
    "AVIF", "BFGS", "CIFAR", "CLIP", "CONTRIBUTING", "CUDA", "DINO", "EPYC", "EXIF", "GFLOP", "HEIC", "JPEG",
    "NVIDIA", "ONNX", "README", "TIFF", "YAML",
}  # fmt: skip
STUDIES = [ROOT / "params.yaml", *(ROOT / "studies").glob("*.yaml")]
PROSE = PAGES | {
    path.name: "\n".join(re.findall(r"#(.*)", path.read_text(encoding="utf-8"))) for path in STUDIES
}  # of a study, its comments


def placeholders(text: str) -> list[str]:
    """The words in capitals, outside code, that stand for a text or figure to come."""
    prose = re.sub(r"^```.*?^```|`[^`]*`|'[^'\s]*'", "", text, flags=re.DOTALL | re.MULTILINE)
    words = re.findall(r"\b(?:TBD|XXX|[A-Z]{4,}s?)\b", prose)
    return [word for word in words if word.removesuffix("s") not in ABBREVIATIONS]


@pytest.mark.parametrize("name", PROSE)
def test_no_text_has_a_placeholder(name):
    assert placeholders(PROSE[name]) == []


def test_a_word_in_capitals_is_a_placeholder_unless_it_is_code_or_an_abbreviation():
    text = "Costs: MINUTES, TBD. JPEGs, `HEAD` and class 'NORMAL'.\n```\nERROR\n```\n"
    assert placeholders(text) == ["MINUTES", "TBD"]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_has_a_target(page):
    folder = ROOT if (ROOT / page).exists() else ROOT / "docs"
    text = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = folder / path if path else folder / page
            assert target.exists(), link
            if anchor and target.suffix == ".md":
                linked = target.read_text(encoding="utf-8")
                assert anchor in anchors(linked) or f'<a id="{anchor}">' in linked, link


def test_the_architecture_page_lists_every_package_and_every_stage():
    page = PAGES["architecture.md"]
    packages = {f"stages/{path.parent.name}" for path in (ROOT / "stages").glob("*/__init__.py")}
    assert {package for package in packages if f"| `{package}` |" not in page} == set()
    stages = pipeline.read_yaml(ROOT / "dvc.yaml")["stages"]
    assert [stage for stage in stages if f"`{stage}`" not in page] == []


# The errors that docs/troubleshooting.md quotes. Each function causes one, and returns what the user reads.


def error_of(work: Callable, *arguments) -> str:
    with pytest.raises(UserError) as error:
        work(*arguments)
    return str(error.value)


def changed_study(changes: dict) -> dict:
    """The smallest study with changes: section -> entry -> key -> value; None removes a section."""
    study = copy.deepcopy(SMALLEST)
    for section, entries in changes.items():
        if entries is None:
            del study[section]
            continue
        for name, entry in entries.items():
            study[section][name] = study[section].get(name, {}) | entry
    return study


def study_problem(**changes) -> str:
    (problem,) = validate_study(changed_study(changes))[1]
    return problem


def dvc_without_a_section() -> str:
    """What DVC itself prints."""
    write_tree(".dvc", {"config": b"[core]\n    no_scm = True\n"})
    shutil.copy(ROOT / "dvc.yaml", ".")
    pipeline.write_study(Path(), changed_study({"heads": None}))
    return pipeline.dvc(Path(), "repro", fails=True).stderr


def invalid_yaml() -> str:
    Path("params.yaml").write_text("seed: 0\ndatasets: : x\n")
    return error_of(read_yaml, Path("params.yaml"))


PHOTOS = {"source": "folder", "path": "my_images", "image_size": 16}
TASK = {"dataset": "photos", "validation": 0.2, "test": 0.2}


def missing_folder() -> str:
    pipeline.write_study(Path(), changed_study({"folders": {"photos": PHOTOS}}))
    return error_of(check.main, check.arguments_parser().parse_args([]))


def folder_error(files: dict[str, bytes], **settings) -> str:
    """The error of preparing and splitting a folder of images."""
    write_tree("my_images", files)
    params = Params(changed_study({"folders": {"photos": PHOTOS}, "tasks": {"my-classes": TASK | settings}}))

    def prepare_and_split():
        for stage, entry in ("prepare", "photos"), ("split", "my-classes"):
            importlib.import_module(f"stages.{stage}").main(params, entry)

    return error_of(prepare_and_split)


def missing_listed_files() -> str:
    write_tree("my_images", images(cat=3, dog=3))
    rows = ["cat/0.png,cat", "cat/01.png,cat", "cat/2.png,cat", "dog/0.png,dog", "dog/1.png,dog", "dog/9.png,dog"]
    Path("my_images/labels.csv").write_text("\n".join(["path,label", *rows]))
    params = Params(changed_study({"folders": {"photos": PHOTOS | {"source": "csv"}}}))
    return error_of(importlib.import_module("stages.prepare").main, params, "photos")


def write_published() -> None:
    names = [f"{split}/{name}" for split in ("train", "test") for name in ("cat", "dog")]
    write_tree("my_images", images(**dict(zip(names, (20, 20, 5, 5), strict=True))))


def unused_split_in_the_check() -> str:
    write_published()
    study = changed_study({"folders": {"photos": PHOTOS}, "tasks": {"my-classes": TASK}})
    pipeline.write_study(Path(), study)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        check.main(check.arguments_parser().parse_args([]))
    return output.getvalue()


def split_warning() -> str:
    """The warning of the task `my-classes` on the images in `my_images`."""
    params = Params(changed_study({"folders": {"photos": PHOTOS}, "tasks": {"my-classes": TASK}}))
    for stage, entry in ("prepare", "photos"), ("split", "my-classes"):
        importlib.import_module(f"stages.{stage}").main(params, entry)
    return "\n".join(split_warnings("my-classes", read_task("my-classes").summary))


def unused_split_in_the_report() -> str:
    write_published()
    return split_warning()


def contradicting_labels() -> str:
    files = images(cat=20, dog=20)
    write_tree("my_images", files | {"dog/9.png": files["cat/0.png"]})
    return split_warning()


def images(**counts: int) -> dict[str, bytes]:
    """Files of different images, by the number per class."""
    random = np.random.default_rng(0)
    return {
        f"{name}/{number}.png": png(random.integers(0, 256, (8, 8, 3), np.uint8))
        for name, count in counts.items()
        for number in range(count)
    }


def download_without_connection() -> str:
    failure = requests.ConnectionError(urllib3.exceptions.NewConnectionError(None, "refused"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.Session, "get", Mock(side_effect=failure))
        return error_of(fetch.fetch, "https://example.com/photos.zip", Path("photos.zip"), f"sha256:{'0' * 64}")


def download_without_disk_space() -> str:
    Path("photos.zip").write_bytes(bytes(2_300_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch.shutil, "disk_usage", lambda _: Mock(free=1_200_000))
        return error_of(fetch.fetch, "photos.zip", Path("data/raw/photos.zip"), None)


def examples_of(array: np.ndarray) -> Examples:
    rows = np.arange(len(array))
    return Examples(array, rows, rows.astype(np.int32) % 2, rows, 2)


def preset_problem(place: str, class_name: str | None = None, **keys) -> str:
    """The problem of a preset that is saved in a folder, if its class is given."""
    if class_name:
        config = {"registered_name": f"keras_hub>{class_name}", "class_name": class_name, "config": {}}
        write_tree(place, {"config.json": json.dumps(config).encode()})
    study = changed_study({"backbones": {"mine": {"architecture": "preset", "weights": place, **keys}}})
    pipeline.write_study(Path(), study)
    return error_of(check.main, check.arguments_parser().parse_args([]))


def failed_preset(place: str, status: int | None) -> str:
    """The error of a download; status: of the response, None without a connection."""
    error = requests.ConnectionError() if status is None else requests.HTTPError(response=Mock(status_code=status))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "BACKOFF", 0)
        patch.setattr(kagglehub, "model_download", Mock(side_effect=error))
        patch.setattr(huggingface_hub, "snapshot_download", Mock(side_effect=error))
        return error_of(preset_folder, place, "backbones.mine.weights")


def features_problem(architecture: str, image_size: int, **keys) -> str:
    features = {"dataset": "digits", "backbone": "mine", "cut": "block3", **keys}
    return study_problem(
        datasets={"digits": {"image_size": image_size}},
        backbones={"mine": {"architecture": architecture, "weights": "preset"}},
        features={"top": features},
    )


def diverged_training() -> str:
    examples = examples_of(np.ones((4, 2), np.float32))
    settings = TrainingConfig(**SMALLEST["training"] | {"repeats": 1})
    description = ModelDescription(
        name="scratch",
        kind="network",
        task="ten-digits",
        dataset="digits",
        classes=["0", "1"],
        image_size=16,
        resize="stretch",
        settings={},
        seed=0,
        provenance=model_record("scratch", "network").provenance,
    )

    def build(_: int, l2: float) -> BuiltModel:
        output = keras.layers.Dense(2, "softmax", kernel_initializer=keras.initializers.Constant(np.nan))
        model = keras.Sequential([keras.Input((2,)), output])
        return BuiltModel(model, model)

    data = {0: TrainingData(dict.fromkeys(SPLITS, examples), examples)}
    return error_of(train_repeats, TrainingSpec(description, [(settings, 0.0)], [0]), build, data)


def large_probe() -> str:
    activations = np.broadcast_to(np.float32(0), (30_000, 7, 7, 512))  # of VGG16's last layer, for images of 224 pixels
    return error_of(check_size, "ridge", "ridge", examples_of(activations))


def tuning_without_normalization() -> str:
    return error_of(tune, build_backbone("four_conv", 16), "normalization", 8, "fine_tunes.tuned.tuning")


def weights_of_another_architecture() -> str:
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save_weights("mine.weights.h5")
    return error_of(load_weights, build_backbone("four_conv", 16), Path("mine.weights.h5"), "backbones.mine.weights")


def odd_image_processor() -> str:
    processor = {"image_processor_type": "EfficientNetImageProcessor", "image_std": [0.5, 0.5, 0.5]}
    Path("preprocessor_config.json").write_text(json.dumps(processor))
    return error_of(transformers_pixels, Path(), "backbones.mine.weights")


def weights_of_another_commit() -> str:
    write_tree("models/scratch", {"weights/repeat-0.weights.h5": b"weights"})
    return error_of(full_model.checked_weights, "scratch", 0, "0" * 64)


def features_of_other_images() -> str:
    task = Task("my-classes", "photos", ["cat", "dog"], "some", pd.DataFrame())
    return error_of(task.check_images, "others", "data/features/top")


def full_disk(capsys) -> str:
    pipeline.write_study(Path(), SMALLEST)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("sys.argv", ["prepare.py"])
        run_stage(Mock(side_effect=OSError(errno.ENOSPC, "No space left on device", "data/images")))
    return capsys.readouterr().err.strip()


LABELS = np.arange(100) % 2


def predictions(correct: int, repeats: int = 1) -> SplitPredictions:
    """Of a hundred images of two classes; every repeat classifies `correct` of them correctly."""
    predicted = np.where(np.arange(100) < correct, LABELS, 1 - LABELS)
    probabilities = np.tile(np.eye(2, dtype=np.float32)[predicted] * 0.8 + 0.1, (repeats, 1, 1))
    return split_predictions(LABELS, probabilities, np.arange(100))


def report_warnings(validation: SplitPredictions, test: SplitPredictions, **changes: float) -> str:
    splits = {"train": validation, "validation": validation, "test": test}
    metrics = {name: split_metrics(split, compute_metrics(split)) for name, split in splits.items()}
    history = pd.DataFrame({"repeat": range(len(test.probabilities)), "epoch": 1, "validation_loss": 0.1})
    record = model_record("b-scratch", "network", classes=["cat", "dog"], **changes)
    result = ModelResult(record, make_cost(1.0), history, {})
    return "\n".join(model_warnings(result, splits, metrics, seed=0))


def one_diverged_repeat() -> str:
    test = predictions(80, repeats=2)
    test.probabilities[1] = np.nan
    return report_warnings(predictions(80, repeats=2), test)


def one_class_never_predicted() -> str:
    cats = split_predictions(LABELS, np.tile(np.float32([0.9, 0.1]), (1, 100, 1)), np.arange(100))
    return report_warnings(cats, cats)


ERRORS = {
    "missing section": lambda: study_problem(heads=None),
    "missing section in DVC": dvc_without_a_section,
    "invalid name": lambda: study_problem(heads={"B_fc1": {}}),
    "unknown key": lambda: study_problem(networks={"scratch": {"epoch": 3}}),
    "missing entry": lambda: study_problem(networks={"scratch": {"task": "ten-digit"}}),
    "unknown layer": lambda: study_problem(networks={"scratch": {"cut": "conv5"}}),
    "weights without checksum": lambda: study_problem(backbones={"untrained": {"weights": "vgg16.h5"}}),
    "invalid YAML": invalid_yaml,
    "missing folder": missing_folder,
    "no class folders": lambda: folder_error({"1.png": png(plain(1))}),
    "class folders at two levels": lambda: folder_error({"a/cat/1.png": png(plain(1)), "cat/1.png": png(plain(2))}),
    "split beside classes": lambda: folder_error(images(cat=3, dog=3, test=3)),
    "nearly the name of a class": lambda: folder_error(
        images(**{"train/cat": 3, "train/dog": 3, "test/cats": 3, "test/dog": 3})
    ),
    "unreadable files": lambda: folder_error(images(cat=3, dog=3) | {"cat/0.png": b"", "cat/1.png": b"text"}),
    "dark 16-bit images": lambda: folder_error(
        {f"{name}/1.png": png((np.arange(64).reshape(8, 8) * 60).astype(np.uint16)) for name in ("cat", "dog")}
    ),
    "listed files that are missing": missing_listed_files,
    "folder without images": lambda: folder_error(images(cat=3, dog=3) | {"notes/1.txt": b"x"}),
    "number of a class": lambda: folder_error(images(**{"1": 2, "2": 2, "3": 2}), include=[1, 2]).splitlines()[0],
    "date as a class": lambda: study_problem(tasks={"my-classes": {**TASK, "include": [date(2024, 5, 1), "may"]}}),
    "few images": lambda: folder_error(images(cat=3, dog=20)),
    "line without small classes": lambda: folder_error(images(ant=20, bee=20, cat=3, eel=5)),
    "published split in the check": unused_split_in_the_check,
    "group without match": lambda: folder_error(images(cat=3, dog=3), group=r"patient\d+"),
    "no connection": download_without_connection,
    "no disk space": download_without_disk_space,
    "preset that can change": lambda: preset_problem("hf://keras/dinov2_small"),
    "preset without checksum": lambda: preset_problem("my_presets/dinov2", "ViTBackbone"),
    "changed preset": lambda: preset_problem("my_presets/dinov2", "ViTBackbone", sha256="0" * 64),
    "missing preset": lambda: preset_problem("my_presets/dinov2", sha256="0" * 64),
    "preset of texts": lambda: preset_problem("my_presets/bert", "BertBackbone", sha256="0" * 64),
    "denied preset": lambda: failed_preset("kaggle://keras/dinov3/keras/dinov3_vit_small_lvd1689m/1", 403),
    "preset without connection": lambda: failed_preset("hf://keras/dinov2_small", None),
    "size without whole patches": lambda: features_problem("siglip_so400m_patch14_384", 16),
    "token that is not there": lambda: features_problem("siglip_so400m_patch14_384", 384, pooling="class_token"),
    "diverged training": diverged_training,
    "large probe": large_probe,
    "tuning without its parts": tuning_without_normalization,
    "weights of another architecture": weights_of_another_architecture,
    "image processor that cannot be followed": odd_image_processor,
    "model that cannot be converted": lambda: error_of(
        transformers_config, Path(), {"model_type": "clip"}, "backbones.mine.weights"
    ),
    "weights of another commit": weights_of_another_commit,
    "features of other images": features_of_other_images,
    "full disk": full_disk,
    "accuracy at chance": lambda: report_warnings(predictions(52), predictions(52)),
    "validation unlike test": lambda: report_warnings(predictions(95), predictions(70)),
    "one diverged repeat": one_diverged_repeat,
    "contradicting labels": contradicting_labels,
    "published split in the report": unused_split_in_the_report,
    "class never predicted": one_class_never_predicted,
    "statistics of batch normalization": lambda: report_warnings(
        predictions(80), predictions(80), batch_statistics_gap=0.1234
    ),
}
QUOTED = list(zip(blocks("troubleshooting.md", "text"), ERRORS, strict=True))


def quote_pattern(quoted: str) -> re.Pattern[str]:
    """Matches the lines that a quote stands for; `...` in it stands for any text."""
    return re.compile(".*".join(map(re.escape, quoted.strip().split("..."))))


@pytest.mark.parametrize(("quoted", "name"), QUOTED, ids=ERRORS)
def test_a_quoted_error_is_the_real_one(quoted, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cause = ERRORS[name]
    error = cause(capsys) if cause is full_disk else cause()
    assert any(quote_pattern(quoted).fullmatch(line.strip()) for line in error.splitlines()), error
