"""The check of a study: what it refuses, its messages, and the command."""

import copy
import hashlib
import json
import subprocess
import sys
from functools import reduce
from operator import getitem
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from stages.config.datasets import CsvConfig, FolderConfig
from stages.config.heads import HeadConfig
from stages.config.tasks import TaskConfig
from stages.config.training import TrainingConfig
from stages.core.errors import UserError
from stages.core.yaml import parse_yaml, read_yaml
from stages.sources import folders
from stages.sources.source_image import SourceImage
from stages.sources.writing import write_images
from stages.validation.published_splits import unused_splits
from stages.validation.study import load_study, validate_study
from tests.conftest import write_tree
from tests.pipeline import write_study

ROOT = Path(__file__).parents[1]
GOOD = read_yaml(ROOT / "params.yaml")

SECTIONS = "seed, margin, datasets, folders, tasks, backbones, networks, features, heads, probes, fine_tunes, training"
TRAINING_KEYS = (
    "epochs, batch_size, optimizer, learning_rate, early_stopping, repeats, max_train_per_class, momentum, "
    "weight_decay, schedule, decay, decay_steps, warm_up, reduce_on_plateau, generalization_loss, train_fraction, "
    "class_weights, label_smoothing, mixup, precision"
)
LAYER_KEYS = "hidden, activation, batch_normalization, dropout, l2"
HEAD_KEYS = f"{LAYER_KEYS}, {TRAINING_KEYS}, task, features, cut, start_from, standardize, views"
PROBE_KEYS = "task, features, cut, kind, views, l2, neighbors, class_weights, train_fraction, max_train_per_class"
LAYERS = "conv1, conv2, pool1, conv3, conv4, pool2, flatten, fc1, dropout"
HELD_OUT = (
    "a share of each class above 0 and below 1, a number of images per class from 2 up, published, or a text such as "
    "'published or 0.2'"
)
CLASSES = "a list of class numbers or names, such as [0, 1] or [cat, dog]"

SMALL = {"source": "digits", "image_size": 16}
OTHER = {"source": "digits", "image_size": 32}
CIFAR10 = {"source": "cifar10", "image_size": 32}
FOLDER = {"source": "folder", "path": "my_images", "image_size": 32}
KAGGLE = {"source": "kaggle", "handle": "owner/birds", "version": 2, "image_size": 32}
ARCHIVE = {"source": "archive", "image_size": 32, "url": "images.zip", "sha256": "0" * 64}
VGG = {"architecture": "vgg16", "weights": "imagenet"}
MOBILENET = {"architecture": "mobilenet_v2", "weights": "imagenet"}

# Changes of the default study: path of a key, with slashes -> its new value; DROP removes the key.
DROP = object()

# The default fine-tune with a tuning.
TUNED = {
    "fine_tunes/b-top-conv/unfreeze": DROP,
    "fine_tunes/b-top-conv/tuning": "bias",
    "fine_tunes/b-top-conv/features": "b-flatten",
}

# The default probe, and a head, on features with two cuts.
SEVERAL_CUTS = {
    "probes/b-ridge/features": "b-fc1",
    "features/b-fc1/cut": ["fc1", "flatten"],
    "heads/b-one-layer/cut": "fc1",
}

BAD_STUDIES = [
    # Sections.
    (
        "an unknown section",
        {"head": {}},
        f"head: this section does not exist (did you mean 'heads'?). Sections: {SECTIONS}.",
    ),
    ("a section named by a number", {7: {}}, f"7: this section does not exist. Sections: {SECTIONS}."),
    ("a margin below 0", {"margin": -1}, "margin: -1 is not valid. Give a number of points from 0 to 100."),
    ("true as the margin", {"margin": True}, "margin: true is not valid. Give a number of points from 0 to 100."),
    (
        "a missing section",
        {"heads": DROP},
        "heads: this section is missing. Give entries by name, or write `heads: {}`.",
    ),
    (
        "an empty section",
        {"fine_tunes": None},
        "fine_tunes: an empty value is not valid. Give entries by name, or write `fine_tunes: {}`.",
    ),
    (
        "a list as a section",
        {"fine_tunes": ["top"]},
        "fine_tunes: ['top'] is not valid. Give entries by name, or write `fine_tunes: {}`.",
    ),
    (
        "no training defaults",
        {"training": DROP},
        f"training: an empty value is not valid. Give keys and values: {TRAINING_KEYS}.",
    ),
    (
        "no model at all",
        {"networks": {}, "heads": {}, "probes": {}, "fine_tunes": {}, "features": {}},
        "networks, heads, probes and fine_tunes are all empty. Give at least one model.",
    ),
    # The seed.
    ("no seed", {"seed": DROP}, "seed: an empty value is not valid. Give a whole number from 0 up."),
    ("text as the seed", {"seed": "one"}, "seed: 'one' is not valid. Give a whole number from 0 up."),
    ("a negative seed", {"seed": -1}, "seed: -1 is not valid. Give a whole number from 0 up."),
    ("true as the seed", {"seed": True}, "seed: true is not valid. Give a whole number from 0 up."),
    # Entries and keys.
    (
        "a dot in a name",
        {"datasets/dig.its": OTHER},
        "datasets: name 'dig.its' is not valid. Use a to z, 0 to 9 and -, and start with a letter.",
    ),
    (
        "a capital in a name",
        {"datasets/Digits": OTHER},
        "datasets: name 'Digits' is not valid. Use a to z, 0 to 9 and -, and start with a letter.",
    ),
    (
        "a number as a name",
        {"datasets": {7: OTHER, "digits": OTHER}},
        "datasets: name 7 is not valid. Use a to z, 0 to 9 and -, and start with a letter.",
    ),
    (
        "a quoted number as a name",
        {"datasets/7": OTHER},
        "datasets: name '7' is not valid. Use a to z, 0 to 9 and -, and start with a letter.",
    ),
    (
        "an empty entry",
        {"heads/b-one-layer": None},
        f"heads.b-one-layer: an empty value is not valid. Give keys and values: {HEAD_KEYS}.",
    ),
    (
        "text as an entry",
        {"datasets/digits": "digits"},
        "datasets.digits: 'digits' is not valid. Give keys and values: source.",
    ),
    (
        "an unknown key",
        {"heads/b-one-layer/epoch": 3},
        f"heads.b-one-layer: key 'epoch' does not exist (did you mean 'epochs'?). Keys: {HEAD_KEYS}.",
    ),
    (
        "a number as a key",
        {"datasets/digits": {**OTHER, 3: 3}},
        "datasets.digits: key 3 does not exist. Keys: image_size, resize, source.",
    ),
    (
        "a key of another source",
        {"datasets/digits/url": "images.zip"},
        "datasets.digits: key 'url' does not exist. Keys: image_size, resize, source.",
    ),
    (
        "a missing reference",
        {"heads/b-one-layer/features": DROP},
        "heads.b-one-layer: key 'features' is missing. Give the name of an entry.",
    ),
    (
        "a missing training default",
        {"training/epochs": DROP},
        "training: key 'epochs' is missing. Give a whole number from 1 to 100000.",
    ),
    # Types and ranges.
    (
        "text instead of a whole number",
        {"training/epochs": "sixty"},
        "training.epochs: 'sixty' is not valid. Give a whole number from 1 to 100000.",
    ),
    (
        "a fraction instead of a whole number",
        {"training/epochs": 2.5},
        "training.epochs: 2.5 is not valid. Give a whole number from 1 to 100000.",
    ),
    (
        "true instead of a whole number",
        {"training/repeats": True},
        "training.repeats: true is not valid. Give a whole number from 1 to 100.",
    ),
    (
        "text instead of a number",
        {"training/learning_rate": "1e-3"},
        "training.learning_rate: '1e-3' is not valid. Give a number above 0, at most 10.",
    ),
    (
        "a number instead of a layer",
        {"features/b-fc1/cut": 3},
        "features.b-fc1.cut: 3 is not valid. Give the name of a layer or block, or a list of them.",
    ),
    (
        "a negative batch size",
        {"training/batch_size": -1},
        "training.batch_size: -1 is not valid. Give a whole number from 1 up.",
    ),
    (
        "a learning rate of zero",
        {"heads/b-one-layer/learning_rate": 0},
        "heads.b-one-layer.learning_rate: 0 is not valid. Give a number above 0, at most 10, or a list of them.",
    ),
    (
        "nan as a learning rate",
        {"training/learning_rate": float("nan")},
        "training.learning_rate: nan is not valid. Give a number above 0, at most 10.",
    ),
    (
        "early stopping after no epochs",
        {"training/early_stopping": 0},
        "training.early_stopping: 0 is not valid. Give a whole number from 1 up, or null.",
    ),
    (
        "null where a value is needed",
        {"heads/b-one-layer/epochs": None},
        "heads.b-one-layer.epochs: an empty value is not valid. Give a whole number from 1 to 100000.",
    ),
    (
        "an unknown optimizer",
        {"training/optimizer": "adamm"},
        "training.optimizer: 'adamm' is not valid. Give adam, adamw, rmsprop or sgd.",
    ),
    # Datasets.
    (
        "an unknown source",
        {"datasets/digits/source": "digit"},
        "datasets.digits.source: 'digit' is not valid. Give digits, cifar10, flowers, archive or kaggle "
        "(folder or csv belongs in section folders).",
    ),
    (
        "no source",
        {"datasets/digits/source": DROP},
        "datasets.digits: key 'source' is missing. Give digits, cifar10, flowers, archive or kaggle (folder "
        "or csv belongs in section folders).",
    ),
    (
        "an image size below the smallest",
        {"datasets/digits/image_size": 4},
        "datasets.digits.image_size: 4 is not valid. Give a whole number from 8 to 1024.",
    ),
    (
        "an archive without a checksum",
        {"datasets/photos": {key: value for key, value in ARCHIVE.items() if key != "sha256"}},
        "datasets.photos: the checksum is missing. Give sha256 of the file, as `sha256sum images.zip` prints it.",
    ),
    (
        "an archive without a URL",
        {"datasets/photos": {**ARCHIVE, "url": ""}},
        "datasets.photos.url: '' is not valid. Give a path or a URL.",
    ),
    (
        "two checksums of one archive",
        {"datasets/photos": {**ARCHIVE, "md5": "0" * 32}},
        "datasets.photos: sha256 and md5 are both given. Give one of them.",
    ),
    (
        "a SHA-256 checksum as md5",
        {"datasets/photos": {"source": "archive", "image_size": 32, "url": "images.zip", "md5": "0" * 64}},
        "datasets.photos.md5: '0000000000000000000000000000000000000000000000000000000000000000' is not "
        "valid. Give 32 hexadecimal digits, 0 to 9 and a to f, or null.",
    ),
    (
        "an unknown resize",
        {"datasets/digits/resize": "squash"},
        "datasets.digits.resize: 'squash' is not valid. Give crop, pad or stretch.",
    ),
    (
        "a Kaggle dataset without its owner",
        {"datasets/birds": {**KAGGLE, "handle": "birds"}},
        "datasets.birds.handle: 'birds' is not valid. Give owner/name, as in the URL of its page.",
    ),
    (
        "a Kaggle dataset without a version",
        {"datasets/birds": {key: value for key, value in KAGGLE.items() if key != "version"}},
        "datasets.birds: key 'version' is missing. Give a whole number from 1 up.",
    ),
    (
        "a folder among the datasets",
        {"datasets/mine": FOLDER},
        "datasets.mine.source: 'folder' is not valid. Give digits, cifar10, flowers, archive or kaggle "
        "(folder or csv belongs in section folders).",
    ),
    (
        "an archive among the folders",
        {"folders/mine": ARCHIVE},
        "folders.mine.source: 'archive' is not valid. Give folder or csv (digits, cifar10, flowers, archive "
        "or kaggle belongs in section datasets).",
    ),
    (
        "a folder without a path",
        {"folders/mine": {"source": "folder", "image_size": 32}},
        "folders.mine: key 'path' is missing. Give the path of a folder.",
    ),
    (
        "a folder that contains the project",
        {"folders/mine": {**FOLDER, "path": "."}},
        "folders.mine.path: '.' contains the project itself. Give a folder that contains only the images.",
    ),
    (
        "a folder that stages write to",
        {"folders/mine": {**FOLDER, "path": "data/raw/mine"}},
        "folders.mine.path: 'data/raw/mine' is in a folder that stages write to. Move the images to another folder.",
    ),
    (
        "a folder and a dataset with one name",
        {"folders/digits": FOLDER},
        "folders.digits: datasets has an entry of this name too. Rename one of them.",
    ),
    # Tasks.
    (
        "one image per class in the test split",
        {"tasks/digits-b/test": 1},
        f"tasks.digits-b.test: 1 is not valid. Give {HELD_OUT}.",
    ),
    (
        "a misspelled published",
        {"tasks/digits-b/test": "publishd"},
        f"tasks.digits-b.test: 'publishd' is not valid. Give {HELD_OUT}.",
    ),
    (
        "a published test split that does not exist",
        {"tasks/digits-b/test": "published"},
        "tasks.digits-b.test: dataset 'digits' does not publish test images (splits: none). Give a share, or "
        "a number of images per class.",
    ),
    (
        "a published validation split of CIFAR-10",
        {
            "datasets/cifar": CIFAR10,
            "tasks/cifar": {"dataset": "cifar", "validation": "published", "test": "published"},
        },
        "tasks.cifar.validation: dataset 'cifar' does not publish validation images (splits: train, test). "
        "Give a share, or a number of images per class.",
    ),
    (
        "an unknown class of CIFAR-10",
        {
            "datasets/cifar": CIFAR10,
            "tasks/cifar": {"dataset": "cifar", "include": ["cat", "hound"], "validation": 0.1, "test": "published"},
        },
        "tasks.cifar.include: class 'hound' does not exist. Classes: 0 to 9, or airplane, automobile, "
        "bird, cat, deer, dog, frog, horse, ship, truck.",
    ),
    (
        "a new name for an unknown class",
        {"tasks/digits-b/rename": {"ten": "zero"}},
        "tasks.digits-b.rename: class 'ten' does not exist. Classes: 0 to 9, or 0, 1, 2, 3, 4, 5, 6, 7, 8, 9.",
    ),
    (
        "a list as rename",
        {"tasks/digits-b/rename": ["dog"]},
        "tasks.digits-b.rename: ['dog'] is not valid. Give class numbers or names with their new names, such "
        "as {cane: dog, gatto: cat}.",
    ),
    (
        "an invalid regular expression",
        {"tasks/digits-b/group": "person(\\d+"},
        "tasks.digits-b.group: 'person(\\\\d+' is not a regular expression (missing ), unterminated subpattern "
        "at position 6). Give one, such as 'patient\\d+'.",
    ),
    (
        "an unknown treatment of near-duplicates",
        {"tasks/digits-b/near_duplicates": "drop"},
        "tasks.digits-b.near_duplicates: 'drop' is not valid. Give report or group.",
    ),
    (
        "at most 0 images of a class",
        {"tasks/digits-b/max_per_class": 0},
        "tasks.digits-b.max_per_class: 0 is not valid. Give a whole number from 1 up, or null.",
    ),
    (
        "a share of 0",
        {"tasks/digits-b/validation": 0},
        f"tasks.digits-b.validation: 0 is not valid. Give {HELD_OUT}.",
    ),
    (
        "a share above one",
        {"tasks/digits-b/test": 1.5},
        f"tasks.digits-b.test: 1.5 is not valid. Give {HELD_OUT}.",
    ),
    (
        "shares that leave no training images",
        {"tasks/digits-b/validation": 0.5},
        "tasks.digits-b: validation 0.5 and test 0.5 leave no images for training. Give shares with a sum below 1.",
    ),
    (
        "include and exclude",
        {"tasks/digits-b/include": [5, 6]},
        "tasks.digits-b: include and exclude are both given. Give one of them.",
    ),
    (
        "a number instead of a list",
        {"tasks/digits-b/exclude": 5},
        f"tasks.digits-b.exclude: 5 is not valid. Give {CLASSES}, or null.",
    ),
    (
        "true as a class",
        {"tasks/digits-b/exclude": [True]},
        "tasks.digits-b.exclude: YAML reads true as a boolean. If it is the name of a class, write it in quotes "
        "exactly as the folder is spelled.",
    ),
    (
        "a negative class",
        {"tasks/digits-b/exclude": [-1]},
        "tasks.digits-b.exclude: YAML reads -1 as a number. If it is the name of a class, write it in quotes "
        "exactly as the folder is spelled.",
    ),
    # Names of other entries.
    (
        "an unknown dataset",
        {"features/b-fc1/dataset": "digit"},
        "features.b-fc1.dataset: 'digit' does not exist in datasets or folders (did you mean 'digits'?). "
        "Entries: digits.",
    ),
    (
        "an unknown task",
        {"heads/b-one-layer/task": "mnist"},
        "heads.b-one-layer.task: 'mnist' does not exist in tasks. Entries: digits-a, digits-b.",
    ),
    (
        "an unknown backbone",
        {"networks/a-scratch/backbone": "four-con"},
        "networks.a-scratch.backbone: 'four-con' does not exist in backbones or networks (did you mean "
        "'four-conv'?). Entries: four-conv, a-scratch, b-scratch, b-all-layers.",
    ),
    (
        "unknown features",
        {"heads/b-one-layer/features": "fc1"},
        "heads.b-one-layer.features: 'fc1' does not exist in features (did you mean 'b-fc1'?). Entries: "
        "b-fc1, b-flatten, b-pool1.",
    ),
    (
        "an unknown head",
        {"fine_tunes/b-top-conv/head": "Zzz"},
        "fine_tunes.b-top-conv.head: 'Zzz' does not exist in heads or probes. Entries: b-one-layer, "
        "b-two-layers, b-ridge.",
    ),
    (
        "another dataset than the task",
        {"datasets/other": OTHER, "networks/a-scratch/dataset": "other"},
        "networks.a-scratch.dataset: 'other' is not valid. Give 'digits', as in tasks.digits-a.",
    ),
    (
        "features of another dataset than the task",
        {"datasets/other": OTHER, "features/b-fc1/dataset": "other"},
        "heads.b-one-layer.features: 'b-fc1' has images of dataset 'other', but tasks.digits-b uses "
        "'digits'. Give features of that dataset.",
    ),
    (
        "another task than the head",
        {"fine_tunes/b-top-conv/task": "digits-a"},
        "fine_tunes.b-top-conv.task: 'digits-a' is not valid. Give 'digits-b', as in heads.b-two-layers.",
    ),
    (
        "another backbone than the head and the features",
        {"fine_tunes/b-top-conv/backbone": "b-all-layers"},
        "fine_tunes.b-top-conv.backbone: 'b-all-layers' is not valid. Give 'a-scratch', as in features.b-flatten.",
    ),
    (
        "another backbone than the features",
        {"features/b-pool1/backbone": "b-scratch"},
        "fine_tunes.b-top-conv.backbone: 'a-scratch' is not valid. Give 'b-scratch', as in features.b-pool1.",
    ),
    (
        "networks in a cycle",
        {"networks/a-scratch/backbone": "b-all-layers"},
        "networks.a-scratch.backbone: the network would start from itself (a-scratch -> b-all-layers -> "
        "a-scratch). Give one of these networks an entry of backbones.",
    ),
    (
        "a network that starts from itself",
        {"networks/a-scratch/backbone": "a-scratch"},
        "networks.a-scratch.backbone: the network would start from itself (a-scratch -> a-scratch). Give one "
        "of these networks an entry of backbones.",
    ),
    (
        "a network and a head with one name",
        {"heads/b-scratch": GOOD["heads"]["b-one-layer"]},
        "networks.b-scratch: heads has an entry of this name too. Rename one of them.",
    ),
    (
        "a network and a backbone with one name",
        {"networks/four-conv": GOOD["networks"]["b-scratch"]},
        "networks.four-conv: backbones has an entry of this name too. Rename one of them.",
    ),
    # Layers and image sizes.
    (
        "a cut that does not exist",
        {"features/b-fc1/cut": "fc9"},
        f"features.b-fc1.cut: four_conv has no layer 'fc9' (did you mean 'fc1'?). Layers: {LAYERS}.",
    ),
    (
        "unfreezing above the cut",
        {"fine_tunes/b-top-conv/unfreeze": "fc1"},
        "fine_tunes.b-top-conv.unfreeze: four_conv has no layer 'fc1' up to the cut 'flatten' of "
        "heads.b-two-layers. Layers: all, conv1, conv2, pool1, conv3, conv4, pool2, flatten.",
    ),
    (
        "unfreezing and tuning",
        {"fine_tunes/b-top-conv/tuning": "bias"},
        "fine_tunes.b-top-conv: unfreeze and tuning are both given. Give one of them.",
    ),
    (
        "a fine-tune that trains nothing of the backbone",
        {"fine_tunes/b-top-conv/unfreeze": DROP},
        "fine_tunes.b-top-conv: unfreeze is missing. Give a layer or `all`, or give tuning: lora, bias or "
        "normalization.",
    ),
    (
        "a rank without low-rank updates",
        {**TUNED, "fine_tunes/b-top-conv/rank": 4},
        "fine_tunes.b-top-conv.rank: 4 is only valid with tuning: lora. Leave rank out.",
    ),
    (
        "a rank with unfreeze",
        {"fine_tunes/b-top-conv/rank": 8},
        "fine_tunes.b-top-conv.rank: 8 is only valid with tuning: lora. Leave rank out.",
    ),
    (
        "layer decay of a tuning",
        {**TUNED, "fine_tunes/b-top-conv/layer_decay": 0.5},
        "fine_tunes.b-top-conv.layer_decay: 0.5 is not valid with tuning. Leave it out, or give unfreeze.",
    ),
    (
        "trained statistics of a tuning",
        {**TUNED, "fine_tunes/b-top-conv/train_batch_normalization": True},
        "fine_tunes.b-top-conv.train_batch_normalization: with tuning, the statistics of batch normalization stay "
        "frozen. Leave it out, or give unfreeze; tuning: normalization trains its scales and shifts.",
    ),
    (
        "low-rank updates without attention",
        {**TUNED, "fine_tunes/b-top-conv/tuning": "lora"},
        "fine_tunes.b-top-conv.tuning: four_conv has no attention for lora. Give another tuning, or unfreeze.",
    ),
    (
        "tuning normalization that is not there",
        {**TUNED, "fine_tunes/b-top-conv/tuning": "normalization"},
        "fine_tunes.b-top-conv.tuning: four_conv has no normalization layers. Give bias, or unfreeze.",
    ),
    (
        "a tuning from features below",
        {**TUNED, "fine_tunes/b-top-conv/features": "b-pool1"},
        "fine_tunes.b-top-conv.features: training cannot start from 'b-pool1' with tuning, which trains weights at all "
        "depths. Give the features of the head, 'b-flatten', to start from the images.",
    ),
    (
        "training from a layer that does not exist",
        {"networks/b-all-layers/trainable": "conv5"},
        "networks.b-all-layers.trainable: four_conv has no layer 'conv5' (did you mean 'conv4'?). Layers: "
        f"all, head, {LAYERS}.",
    ),
    (
        "training random weights from a layer that does not exist",
        {"networks/b-scratch/trainable": "conv5"},
        "networks.b-scratch.trainable: four_conv has no layer 'conv5' (did you mean 'conv4'?). Layers: all, "
        f"head, {LAYERS}.",
    ),
    (
        "frozen random weights",
        {"networks/b-scratch/trainable": "conv3"},
        "networks.b-scratch.trainable: 'conv3' would freeze random weights. Use all.",
    ),
    (
        "features of random weights",
        {"features/b-fc1/backbone": "four-conv"},
        "features.b-fc1.backbone: 'four-conv' has random weights. Give a network or a trained backbone.",
    ),
    (
        "images too small for the backbone",
        {
            "datasets/small": SMALL,
            "backbones/vgg": VGG,
            "features/small": {"dataset": "small", "backbone": "vgg", "cut": "block5_pool"},
        },
        "features.small.dataset: the images of 'small' are 16 pixels wide, but vgg16 needs at least 32. "
        "Increase datasets.small.image_size.",
    ),
    (
        "images of another size than a backbone of fixed size",
        {"datasets/small": SMALL, "features/small": {"dataset": "small", "backbone": "a-scratch", "cut": "fc1"}},
        "features.small.dataset: the images of 'small' are 16 pixels wide, but 'a-scratch' was trained on "
        "32, and four_conv works with one size only. Use a dataset with image_size: 32.",
    ),
    # Weights.
    (
        "an unknown architecture",
        {"backbones/four-conv/architecture": "vgg17"},
        "backbones.four-conv.architecture: 'vgg17' does not exist (did you mean 'vgg19'?). Architectu",
    ),
    (
        "ImageNet weights that do not exist",
        {"backbones/four-conv/weights": "imagenet"},
        "backbones.four-conv.weights: four_conv has no ImageNet weights. Give random, or a path or URL with "
        "its sha256.",
    ),
    (
        "a weights file without a checksum",
        {"backbones/four-conv/weights": "four.weights.h5"},
        "backbones.four-conv.weights: 'four.weights.h5' has no checksum. Give sha256 of the file, as "
        "`sha256sum four.weights.h5` prints it. Or give random or imagenet; a network of the study is a backbone "
        "under its own name.",
    ),
    (
        "an invalid checksum",
        {"backbones/four-conv/weights": "four.weights.h5", "backbones/four-conv/sha256": "abc"},
        "backbones.four-conv.sha256: 'abc' is not valid. Give 64 hexadecimal digits, 0 to 9 and a to f, or null.",
    ),
    (
        "a checksum of random weights",
        {"backbones/four-conv/sha256": "a" * 64},
        "backbones.four-conv.sha256: random weights have no checksum. Leave it out.",
    ),
    # Settings of a training, each accepted but not with the others.
    (
        "momentum with adam",
        {"heads/b-one-layer/momentum": 0.9},
        "heads.b-one-layer.momentum: 0.9 is not valid with optimizer adam. Use sgd or rmsprop, or leave momentum out.",
    ),
    (
        "momentum with adam in the defaults",
        {"training/momentum": 0.9},
        "training.momentum: 0.9 is not valid with optimizer adam. Use sgd or rmsprop, or leave momentum out.",
    ),
    (
        "a warm-up as long as the training",
        {"heads/b-one-layer/warm_up": 200},
        "heads.b-one-layer.warm_up: 200 is not valid with 200 epochs. Give fewer.",
    ),
    (
        "an unknown schedule",
        {"training/schedule": "linear"},
        "training.schedule: 'linear' is not valid. Give constant, exponential or cosine.",
    ),
    (
        "a training fraction above 1",
        {"heads/b-one-layer/train_fraction": 1.5},
        "heads.b-one-layer.train_fraction: 1.5 is not valid. Give a number above 0, at most 1, or null.",
    ),
    (
        "an unknown precision",
        {"features/b-fc1/precision": "float16"},
        "features.b-fc1.precision: 'float16' is not valid. Give auto, float32 or bfloat16.",
    ),
    (
        "text instead of true or false",
        {"heads/b-one-layer/batch_normalization": "yes"},
        "heads.b-one-layer.batch_normalization: 'yes' is not valid. Give true or false.",
    ),
    (
        "several learning rates of a network",
        {"networks/b-scratch/learning_rate": [0.1, 0.01]},
        "networks.b-scratch.learning_rate: [0.1, 0.01] is not valid. Give a number above 0, at most 10.",
    ),
    (
        "an empty list of learning rates",
        {"heads/b-one-layer/learning_rate": []},
        "heads.b-one-layer.learning_rate: [] is not valid. Give a number above 0, at most 10, or a list of them.",
    ),
    # Augmentation.
    (
        "an unknown augmentation",
        {"networks/b-scratch/augmentation": {"rotate": 15}},
        "networks.b-scratch.augmentation: {'rotate': 15} is not valid. Give keys and values (rotation, "
        "shift, zoom, shear, flip, noise, brightness, contrast, fill), such as {rotation: 15}, or null.",
    ),
    (
        "an augmentation that changes nothing",
        {"features/b-fc1/views": [{"fill": "wrap"}]},
        "features.b-fc1.views: an augmentation changes nothing. Give rotation, shift, zoom or another key.",
    ),
    (
        "augmentation of a head",
        {"heads/b-one-layer/augmentation": {"rotation": 15}},
        f"heads.b-one-layer: key 'augmentation' does not exist (did you mean 'activation'?). Keys: {HEAD_KEYS}.",
    ),
    (
        "augmentation with features to start from",
        {"fine_tunes/b-top-conv/augmentation": {"rotation": 15}},
        "fine_tunes.b-top-conv.features: training cannot start from 'b-pool1' with augmentation. Give the "
        "features of the head, 'b-flatten', to start from the images, or leave augmentation out.",
    ),
    (
        "more views than the features have",
        {"heads/b-one-layer/views": 2},
        "heads.b-one-layer.views: 2 is not valid, because features.b-fc1 has 1 (the image itself is the "
        "first). Give at most that many.",
    ),
    # Several cuts.
    (
        "one layer with two names",
        {"features/b-fc1/cut": ["dropout", "top"], "heads/b-one-layer/cut": "top"},
        "features.b-fc1.cut: 'dropout' and 'top' are the same layer, dropout. Leave one of them out.",
    ),
    (
        "a head without one of several cuts",
        {"features/b-fc1/cut": ["fc1", "flatten"]},
        "heads.b-one-layer.cut: the key is missing, and features.b-fc1 has several cuts. Give one of fc1, flatten.",
    ),
    (
        "a cut that the features do not have",
        {"heads/b-one-layer/cut": "flatten"},
        "heads.b-one-layer.cut: 'flatten' is not a cut of features.b-fc1. Cuts: fc1.",
    ),
    (
        "a cut of a network that does not exist",
        {"networks/b-all-layers/cut": "fc9"},
        f"networks.b-all-layers.cut: four_conv has no layer 'fc9' (did you mean 'fc1'?). Layers: {LAYERS}.",
    ),
    (
        "more layers than the backbone has",
        {"fine_tunes/b-top-conv/unfreeze": 8},
        "fine_tunes.b-top-conv.unfreeze: four_conv has fewer than 8 layers up to the cut 'flatten' of "
        "heads.b-two-layers. Layers: all, conv1, conv2, pool1, conv3, conv4, pool2, flatten.",
    ),
    (
        "a random backbone with only the head trained",
        {"networks/b-scratch/trainable": "head"},
        "networks.b-scratch.trainable: 'head' would freeze random weights. Use all.",
    ),
    # Heads.
    (
        "an unknown start of a head",
        {"heads/b-one-layer/start_from": "weights"},
        "heads.b-one-layer.start_from: 'weights' is not valid. Give random or backbone.",
    ),
    # Probes.
    (
        "dense layers of a probe",
        {"probes/b-ridge/hidden": [8]},
        f"probes.b-ridge: key 'hidden' does not exist. Keys: {PROBE_KEYS}.",
    ),
    (
        "an unknown kind of probe",
        {"probes/b-ridge/kind": "lasso"},
        "probes.b-ridge.kind: 'lasso' is not valid. Give ridge, logistic or nearest_neighbors.",
    ),
    (
        "an L2 penalty of 0 for a probe",
        {"probes/b-ridge/l2": [0.0, 1.0]},
        "probes.b-ridge.l2: [0.0, 1.0] is not valid. Give a number above 0, a list of them, or null.",
    ),
    (
        "a probe without one of several cuts",
        {"probes/b-ridge/features": "b-fc1", "features/b-fc1/cut": ["fc1", "flatten"], "heads/b-one-layer/cut": "fc1"},
        "probes.b-ridge.cut: the key is missing, and features.b-fc1 has several cuts. Give one of fc1, flatten.",
    ),
    (
        "a joined cut that the features do not have",
        {**SEVERAL_CUTS, "probes/b-ridge/cut": ["fc1", "flaten"]},
        "probes.b-ridge.cut: 'flaten' is not a cut of features.b-fc1 (did you mean 'flatten'?). Cuts: fc1, flatten.",
    ),
    (
        "one layer joined with itself",
        {**SEVERAL_CUTS, "probes/b-ridge/cut": ["fc1", "flatten", "fc1"]},
        "probes.b-ridge.cut: 'fc1' and 'fc1' are the same layer, fc1. Leave one of them out.",
    ),
    (
        "one layer joined with itself by another name",
        {
            **SEVERAL_CUTS,
            "features/b-fc1/cut": ["top", "flatten"],
            "heads/b-one-layer/cut": "top",
            "probes/b-ridge/cut": ["top", "flatten", "dropout"],
        },
        "probes.b-ridge.cut: 'top' and 'dropout' are the same layer, dropout. Leave one of them out.",
    ),
    (
        "joined cuts whose features are images",
        {**SEVERAL_CUTS, "features/b-fc1/cut": ["fc1", "pool1"], "probes/b-ridge/cut": ["fc1", "pool1"]},
        "probes.b-ridge.cut: several cuts are joined as vectors, but features.b-fc1 has pooling: none. Set its "
        "pooling, or give one cut.",
    ),
    (
        "an empty list of joined cuts",
        {"probes/b-ridge/cut": []},
        "probes.b-ridge.cut: [] is not valid. Give the name of a layer or block, a list of them, or null.",
    ),
    (
        "joined cuts of a head",
        {**SEVERAL_CUTS, "probes/b-ridge/cut": "fc1", "heads/b-one-layer/cut": ["fc1", "flatten"]},
        "heads.b-one-layer.cut: ['fc1', 'flatten'] is not valid. Give the name of a layer or block, or null.",
    ),
    (
        "a fine-tune of a probe that joins cuts",
        {**SEVERAL_CUTS, "probes/b-ridge/cut": ["fc1", "flatten"], "fine_tunes/b-top-conv/head": "b-ridge"},
        "fine_tunes.b-top-conv.head: 'b-ridge' joins several cuts, but training continues from one. Use a probe, or a "
        "head, of one cut.",
    ),
    (
        "a probe and a fine-tune with one name",
        {"probes/b-top-conv": GOOD["probes"]["b-ridge"]},
        "probes.b-top-conv: fine_tunes has an entry of this name too. Rename one of them.",
    ),
    (
        "a penalty of nearest neighbors",
        {"probes/b-ridge/kind": "nearest_neighbors", "probes/b-ridge/l2": 0.1},
        "probes.b-ridge.l2: nearest_neighbors has no penalty. Leave l2 out, or use kind ridge or logistic.",
    ),
    (
        "neighbors of a linear probe",
        {"probes/b-ridge/neighbors": [1, 5]},
        "probes.b-ridge.neighbors: ridge has no neighbors. Leave neighbors out, or use kind nearest_neighbors.",
    ),
    (
        "a fine-tune of nearest neighbors",
        {"fine_tunes/b-top-conv/head": "b-ridge", "probes/b-ridge/kind": "nearest_neighbors"},
        "fine_tunes.b-top-conv.head: 'b-ridge' is a probe of nearest neighbors, which has no layers to train. Use a "
        "probe of kind ridge or logistic, or a head.",
    ),
    (
        "a fine-tune of a probe with another task",
        {"fine_tunes/b-top-conv/head": "b-ridge", "fine_tunes/b-top-conv/task": "digits-a"},
        "fine_tunes.b-top-conv.task: 'digits-a' is not valid. Give 'digits-b', as in probes.b-ridge.",
    ),
    (
        "hidden layers with the backbone's own layers",
        {"heads/b-two-layers/hidden": [10]},
        "heads.b-two-layers: hidden [10] cannot be combined with start_from: backbone, which uses the "
        "backbone's own layers. Leave out one or the other.",
    ),
    (
        "pooling of vectors",
        {"features/b-fc1/pooling": "average"},
        "features.b-fc1.pooling: the activations of fc1 cannot be pooled, because they are vectors. Use "
        "pooling: none, or one of these cuts of four_conv: conv1, conv2, pool1, conv3, conv4, pool2.",
    ),
    (
        "a task of one class",
        {"tasks/digits-a/include": [3]},
        "tasks.digits-a.include: [3] is one class. Give at least two.",
    ),
    (
        "features without a class that the task includes",
        {"tasks/digits-b/include": [5, 6, 7, 8, 9], "tasks/digits-b/exclude": None, "features/b-fc1/classes": [5, 7]},
        "heads.b-one-layer.features: features.b-fc1.classes lacks 6, 8, 9 of tasks.digits-b. Add them there, "
        "or leave the key out for all classes.",
    ),
    (
        "features without a class that the task does not exclude",
        {"features/b-pool1/classes": [5, 6]},
        "fine_tunes.b-top-conv.features: features.b-pool1.classes lacks 7, 8, 9 of tasks.digits-b. Add them "
        "there, or leave the key out for all classes.",
    ),
    (
        "an unknown digit",
        {"tasks/digits-a/include": [0, 1, 12]},
        "tasks.digits-a.include: class 12 does not exist. Classes: 0 to 9, or 0, 1, 2, 3, 4, 5, 6, 7, 8, 9.",
    ),
    (
        "an unknown class of features",
        {"features/b-fc1/classes": [5, 6, 7, 8, 9, "ten"]},
        "features.b-fc1.classes: class 'ten' does not exist. Classes: 0 to 9, or 0, 1, 2, 3, 4, 5, 6, 7, 8, 9.",
    ),
    (
        "a fine-tune of all layers that starts from features",
        {"fine_tunes/b-top-conv/unfreeze": "conv1"},
        "fine_tunes.b-top-conv.features: training from 'conv1' upward cannot start from 'b-pool1' (cut "
        "pool1, pooling none). Give the features of the head, to start from the images.",
    ),
    (
        "a fine-tune with features above unfreeze",
        {"fine_tunes/b-top-conv/features": "b-fc1", "features/b-fc1/cut": "conv4"},
        "fine_tunes.b-top-conv.features: training from 'conv3' upward cannot start from 'b-fc1' (cut conv4, "
        "pooling none). Give features with pooling: none and one of the cuts conv1, conv2, pool1, or the "
        "features of the head, to start from the images.",
    ),
    (
        "the backbone's own layers on pooled features",
        {"features/b-flatten/pooling": "max", "features/b-flatten/cut": "pool2"},
        "heads.b-two-layers.start_from: backbone is not valid, because features.b-flatten has pooling: max. "
        "Use features with pooling: none, or start_from: random.",
    ),
    (
        "the backbone's own layers above a cut that other paths bypass",
        {
            "backbones/mobile": MOBILENET,
            "features/mobile": {"dataset": "digits", "backbone": "mobile", "cut": "block_2_expand"},
            "heads/mobile": {"task": "digits-a", "features": "mobile", "start_from": "backbone"},
        },
        "heads.mobile.start_from: backbone is not valid, because other paths bypass the cut 'block_",
    ),
    (
        "a hidden layer of 0 units",
        {"heads/b-one-layer/hidden": [0]},
        "heads.b-one-layer.hidden: [0] is not valid. Give a list of whole numbers from 1 to 65536, such as "
        "[64, 32], or [].",
    ),
    (
        "dropout of all units",
        {"heads/b-one-layer/dropout": 1},
        "heads.b-one-layer.dropout: 1 is not valid. Give a number from 0 to below 1.",
    ),
]
IDS = [name for name, *_ in BAD_STUDIES]

BAD_FILES = {
    "duplicate key": (
        "seed: 0\nseed: 1\n",
        "params.yaml, line 2, column 1: not valid YAML (found duplicate key 'seed').",
    ),
    "open bracket": ("seed: [0\n", "params.yaml, line 2, column 1: not valid YAML (did not find expected ',' or ']')."),
    "tab": ("training:\n\tepochs: 1\n", "params.yaml, line 2, column 1: not valid YAML (found character that cannot"),
    "control character": ("seed: \0\n", "params.yaml: not valid YAML (control characters are not allowed)."),
    "no such date": (
        "seed: 2020-13-01\n",
        "params.yaml is not valid YAML (month must be in 1..12). Put the value in quo",
    ),
    "deep nesting": (
        "[" * 100_000,
        "params.yaml, line 1, column 51: not valid YAML (found more than 50 levels of nesting).",
    ),
    "list": ("- seed\n", f"['seed'] is not a study. Give the sections {SECTIONS}."),
    "list in itself": ("&list [*list]\n", f"[[[[[...]]]]] is not a study. Give the sections {SECTIONS}."),
    "nothing": ("", f"an empty value is not a study. Give the sections {SECTIONS}."),
    "text": ("hello", f"'hello' is not a study. Give the sections {SECTIONS}."),
}


def changed(changes):
    """A copy of the default study with changes."""
    study = copy.deepcopy(GOOD)
    for path, value in changes.items():
        *parents, key = path.split("/") if isinstance(path, str) else [path]
        section = reduce(getitem, parents, study)
        if value is DROP:
            del section[key]
        else:
            section[key] = value
    return study


def run_check(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-B", "-m", "stages.check", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_default_study_is_one_of_the_ready_studies():
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "studies/digits_class_groups.yaml").read_bytes()


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_ready_study_is_valid_and_says_what_it_needs_costs_and_shows(path):
    assert load_study(path).models
    comment = path.read_text(encoding="utf-8").split("\nseed:")[0]
    assert all(line.startswith("#") or not line for line in comment.splitlines())
    for word in ("Needs:", "Costs", "Expect"):
        assert word in comment


@pytest.mark.parametrize(("name", "changes", "message"), BAD_STUDIES, ids=IDS)
def test_each_problem_of_a_study_is_reported_in_one_line(name, changes, message):
    study, problems = validate_study(changed(changes))
    assert study is None
    assert len(problems) == 1
    if message.endswith("."):
        assert problems[0] == message
    else:  # a long list follows
        assert problems[0].startswith(message)
        assert problems[0].endswith(".")
    assert "\n" not in problems[0]


@pytest.mark.parametrize(
    ("path", "text", "read_as"),
    [
        ("tasks/digits-b/exclude", "[2024-05-01, five]", {"2024-05-01": "a date"}),
        (
            "tasks/digits-a/include",
            "[true, False, 1.5]",
            {"true": "a boolean", "false": "a boolean", "1.5": "a number"},
        ),
        (
            "tasks/digits-a/include",
            "[2001-12-14 21:59:43, ~]",
            {"2001-12-14 21:59:43": "a date", "null": "an empty value"},
        ),
        ("tasks/digits-a/rename", "{TRUE: yes, 2024-05-01: may}", {"true": "a boolean", "2024-05-01": "a date"}),
        ("tasks/digits-a/rename", "{one: 1, two: 2024-05-02}", {"1": "a number", "2024-05-02": "a date"}),
        ("tasks/digits-a/include", "[1.10, 2.0]", {"1.1": "a number", "2.0": "a number"}),
        ("tasks/digits-a/include", "[NULL, 1e3, yes]", {"null": "an empty value", "1000.0": "a number"}),
        ("features/b-fc1/classes", "[-5, 2024-05-01]", {"-5": "a number", "2024-05-01": "a date"}),
    ],
)
def test_a_class_name_that_yaml_does_not_read_as_text_is_to_be_quoted(path, text, read_as):
    _, problems = validate_study(changed({path: parse_yaml(text)}))
    where = path.replace("/", ".")
    assert problems == [
        f"{where}: YAML reads {name} as {kind}. If it is the name of a class, write it in quotes"
        + (f", such as '{name}'." if kind == "a date" and ":" not in name else " exactly as the folder is spelled.")
        for name, kind in read_as.items()
    ]


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_not_a_study_is_reported_with_line_and_column(text, message, tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        load_study(Path("params.yaml"))
    sentence = str(error.value).removeprefix("params.yaml has 1 problem:\n  ")
    assert sentence.startswith(message)
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_a_missing_study_a_folder_and_another_encoding_are_reported(tmp_path):
    with pytest.raises(UserError, match=r"no\.yaml does not exist\. Give the path of a study, or copy one of studies/"):
        load_study(tmp_path / "no.yaml")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)\. Give the path of a study\.$"):
        load_study(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("seed: é".encode("latin-1"))
    with pytest.raises(UserError, match=r"is not UTF-8 text\. Save it as UTF-8\.$"):
        load_study(tmp_path / "latin.yaml")


def test_all_problems_are_reported_at_once(tmp_path):
    changes = {
        "training/epochs": 0,
        "tasks/digits-b/test": 1.5,
        "heads/b-one-layer/features": "fc1",
        "networks/b-scratch/backbone": "b-scratch",
        "datasets/Digits": OTHER,
        "lists": {},
    }
    write_study(tmp_path, changed(changes))
    with pytest.raises(UserError) as error:
        load_study(tmp_path / "params.yaml")
    first, *problems = str(error.value).splitlines()
    assert first.endswith("params.yaml has 6 problems:")
    assert [problem.split()[0] for problem in problems] == [
        "lists:",
        "training.epochs:",
        "datasets:",
        "tasks.digits-b.test:",
        "heads.b-one-layer.features:",
        "networks.b-scratch.backbone:",
    ]


def test_two_rules_of_one_entry_are_reported_at_once():
    task = {"include": [1], "validation": 0.5, "test": 0.5, "group": "("}
    _, problems = validate_study(changed({f"tasks/digits-a/{key}": value for key, value in task.items()}))
    assert [problem.split()[0] for problem in problems] == [
        "tasks.digits-a:",
        "tasks.digits-a.include:",
        "tasks.digits-a.group:",
    ]


def test_a_reference_to_an_entry_with_a_problem_is_not_a_second_problem():
    _, problems = validate_study(changed({"datasets/digits/image_size": "large"}))
    assert len(problems) == 1


def test_a_number_as_a_name_is_no_obstacle_to_suggestions():
    _, problems = validate_study(changed({"datasets": {7: OTHER}}))
    assert any("'digits' does not exist in datasets or folders. Entries: 7." in problem for problem in problems)


@pytest.mark.parametrize("value", ["9" * 1000, ["9" * 1000], {"9" * 1000: 9}, [[["9" * 1000] * 99] * 99], 10**999])
def test_a_long_value_is_shortened(value):
    _, [problem] = validate_study(changed({"training/epochs": value}))
    assert len(problem) < 160


def test_check_prints_that_a_study_is_valid_and_writes_nothing(tmp_path):
    write_study(tmp_path, GOOD)
    done = run_check(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "check: params.yaml is valid (models: 7, features: 3)\n"
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_check_reports_every_missing_folder(tmp_path):
    write_study(tmp_path, changed({"folders/mine": FOLDER, "folders/more": {**FOLDER, "path": "pulled/"}}))
    (tmp_path / "pulled.dvc").touch()
    done = run_check(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "check: folders.mine.path: folder 'my_images' does not exist. Correct the path, or put the images there.\n"
        "  folders.more.path: folder 'pulled/' does not exist. Run `dvc pull pulled.dvc` to fetch it.\n"
    )
    (tmp_path / "my_images").mkdir()
    (tmp_path / "pulled").mkdir()
    assert run_check(tmp_path).returncode == 0


def test_check_reports_all_missing_folders(tmp_path):
    write_study(tmp_path, changed({"folders/mine": FOLDER, "folders/yours": FOLDER | {"path": "gone"}}))
    assert run_check(tmp_path).stderr.splitlines() == [
        "check: folders.mine.path: folder 'my_images' does not exist. Correct the path, or put the images there.",
        "  folders.yours.path: folder 'gone' does not exist. Correct the path, or put the images there.",
    ]


CIFAR10 = {"source": "cifar10", "image_size": 32}
SPLIT_FOLDERS = [f"{split}/{name}/1.png" for split in ("Training", "valid", "test") for name in ("cat", "dog")]
TABLE = "path;label;split\n1;cat;train\n2;dog;testing\n"


@pytest.mark.parametrize(
    ("dataset", "files", "validation", "test", "unused"),
    [
        (FOLDER, SPLIT_FOLDERS, 0.2, 0.2, ["test: 0.2", "validation: 0.2"]),
        (FOLDER, SPLIT_FOLDERS, 0.2, "published", ["validation: 0.2"]),
        (FOLDER, SPLIT_FOLDERS, "published", 5, ["test: 5"]),
        (FOLDER, SPLIT_FOLDERS, "published or 0.2", "published or 5", []),
        (FOLDER, ["cat/1.png", "dog/1.png"], 0.2, 0.2, []),
        (FOLDER, [*SPLIT_FOLDERS[:2], "test/unknown/1.png"], 0.2, 0.2, []),
        (FOLDER, ["1.png"], 0.2, 0.2, []),  # the stage `prepare` reports that there are no classes
        (FOLDER | {"source": "csv"}, ["1.png", "2.png"], 0.2, 0.2, ["test: 0.2"]),
        (CIFAR10, [], 0.2, 0.2, ["test: 0.2"]),
        (CIFAR10, [], 0.2, "published", []),
    ],
)
def test_check_names_published_splits_that_a_task_does_not_use(dataset, files, validation, test, unused, tmp_path):
    for file in files:
        (tmp_path / "my_images" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "my_images" / file).touch()
    if dataset["source"] == "csv":
        (tmp_path / "my_images/labels.csv").write_text(TABLE)
    section = "datasets" if dataset is CIFAR10 else "folders"
    task = {"dataset": "mine", "validation": validation, "test": test}
    write_study(tmp_path, changed({f"{section}/mine": dataset, "tasks/t": task}))
    done = run_check(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == [
        f"check: tasks.t: dataset 'mine' publishes a {split} split, but `{split}: {value}` draws another one. To use "
        f"it, write `{split}: published`."
        for split, value in (line.split(": ") for line in unused)
    ]


@pytest.mark.parametrize("source", ["folder", "csv"])
def test_check_reads_a_folder_once_and_looks_for_no_listed_file(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tree("my_images", {**dict.fromkeys(SPLIT_FOLDERS, b""), "labels.csv": TABLE.encode()})
    calls = {name: Mock(wraps=getattr(folders, name)) for name in ("_walk", "_labeled_rows", "locate_files")}
    for name, function in calls.items():
        monkeypatch.setattr(folders, name, function)
    dataset = (FolderConfig if source == "folder" else CsvConfig)(**FOLDER | {"source": source})
    tasks = {name: TaskConfig(dataset="mine", validation="published", test=0.2) for name in "abc"}
    assert len(list(unused_splits(tasks, {"mine": dataset}))) == 3
    used = "_walk" if source == "folder" else "_labeled_rows"
    assert {name: function.call_count for name, function in calls.items()} == dict.fromkeys(calls, 0) | {used: 1}


def test_check_knows_the_published_splits_of_prepared_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = [np.full((8, 8), number, np.uint8) for number in range(2)]
    source = [
        SourceImage(split, "cat", lambda number=number: pixels[number], split)
        for number, split in enumerate(("", "test"))
    ]
    archive = {"source": "archive", "url": "photos.zip", "sha256": "0" * 64, "image_size": 8}
    task = {"dataset": "mine", "validation": 0.2, "test": 0.2}
    write_study(tmp_path, changed({"datasets/mine": archive, "tasks/t": task}))
    assert len(run_check(tmp_path).stdout.splitlines()) == 1
    write_images("mine", source, 8, 0.0)
    assert "tasks.t: dataset 'mine' publishes a test split" in run_check(tmp_path).stdout


@pytest.mark.parametrize("value", ["published or 0", "published or 1.5", "published or 1", "published or", "Published"])
def test_published_or_something_else_is_not_valid(value):
    _, problems = validate_study(changed({"tasks/digits-a/test": value}))
    assert problems == [f"tasks.digits-a.test: '{value}' is not valid. Give {HELD_OUT}."]


def test_shares_after_published_or_count_too():
    task = {"tasks/digits-a/validation": "published or 0.5", "tasks/digits-a/test": 0.6}
    assert "leave no images for training" in validate_study(changed(task))[1][0]


@pytest.mark.parametrize("path", ["~/photos", "$HOME/photos", "${HOME}/photos"])
def test_a_path_that_only_a_shell_expands_is_an_error_with_the_expanded_path(path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/jane")
    assert validate_study(changed({"folders/mine": {**FOLDER, "path": path}}))[1] == [
        f"folders.mine.path: {path!r} is not expanded here, as a shell would. Write '/home/jane/photos'."
    ]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"backbones/four-conv/weights": "there.h5"}, "backbones.four-conv.weights: 'there.h5' has no checksum."),
        ({"backbones/four-conv/weights": "~/there.h5"}, "backbones.four-conv.weights: '~/there.h5' has no checksum."),
        ({"datasets/photos": {**ARCHIVE, "url": "there.h5", "sha256": None}}, "datasets.photos: the checksum is"),
        (
            {"datasets/photos": {**ARCHIVE, "url": "file:there.h5", "sha256": None}},
            "datasets.photos: the checksum is missing.",
        ),
    ],
)
def test_the_checksum_of_a_file_that_is_there_is_ready_to_copy(changes, where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("there.h5").write_bytes(b"content")
    [problem] = validate_study(changed(changes))[1]
    assert problem.startswith(where)
    assert f"Give `sha256: {hashlib.sha256(b'content').hexdigest()}`, if this file is the right one." in problem


@pytest.mark.parametrize(
    "weights", ["missing.h5", "x" * 999, "https://example.org/a.h5?x=1#y", "~nobody/a.h5", "a\0.h5"]
)
def test_a_checksum_that_cannot_be_computed_is_left_to_sha256sum(weights):
    [problem] = validate_study(changed({"backbones/four-conv/weights": weights}))[1]
    assert "has no checksum. Give sha256 of the file, as `sha256sum " in problem and "?x=1`" not in problem


@pytest.mark.parametrize(
    ("folders", "note"),
    [([".dvc"], True), ([".dvc", ".git"], False), ([".dvc", "../.git"], False), ([], False)],
)
def test_check_says_that_a_copy_without_git_needs_git(folders, note, tmp_path):
    project = tmp_path / "project"
    for folder in [".", *folders]:
        (project / folder).mkdir(parents=True)
    write_study(project, GOOD)
    done = run_check(project)
    assert done.returncode == 0
    sentence = "check: DVC needs a git repository, which this folder is not. Run `git init` here.\n"
    assert done.stderr == sentence * note


@pytest.mark.parametrize("arguments", [[], ["--clean"]])
def test_check_of_a_bad_study_exits_with_the_problem_and_changes_no_file(arguments, tmp_path):
    changes, message = next(row[1:] for row in BAD_STUDIES if row[0] == "networks in a cycle")
    write_study(tmp_path, changed(changes))
    leftover = tmp_path / "models/gone/record.json"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    done = run_check(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"check: params.yaml has 1 problem:\n  {message}\n"
    assert {path.name for path in tmp_path.rglob("*")} == {"models", "params.yaml", "gone", "record.json"}


KEPT = [
    *(
        "models/b-ridge/record.json",
        "models/unfinished/weights/repeat-0.weights.h5",
        "models/copied-by-the-user/record.json",
        "models/README.md",
        "models/.partial-x/record.json",
    ),
    *("data/tasks/digits-a/task.json", "data/gallery/digits-a/tiles.csv", "data/mistakes/digits-b/tiles.csv"),
    *("exports/recommended/digits-a/model.json", "data/costs/models/b-ridge.json", "data/costs/features/b-fc1.json"),
    *("data/checkpoints/b-scratch/state.npz", "data/images/gone/images.npy", "exports/gone/model.json"),
]
REMOVED = [
    *(
        "models/gone/record.json",
        "models/b-fc1/record.json",
        "data/tasks/gone/task.json",
        "data/gallery/gone/tiles.csv",
    ),
    *("data/mistakes/gone/tiles.csv", "exports/recommended/gone/model.json", "data/costs/models/gone.json"),
    *("data/costs/features/gone.json", "data/checkpoints/gone/state.npz"),
]


def test_check_removes_what_removed_entries_have_left_behind(tmp_path):
    write_study(tmp_path, GOOD)
    for name in (*KEPT, *REMOVED):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"name": "b-ridge" if "copied" in name else file.parent.name}))
    (tmp_path / "models/linked").symlink_to("gone")
    assert run_check(tmp_path).returncode == 0
    assert all((tmp_path / name).exists() for name in (*KEPT, *REMOVED))
    done = run_check(tmp_path, "--clean")
    assert (done.returncode, done.stderr) == (0, "")
    assert "check: removed models/gone, whose entry is no longer in params.yaml\n" in done.stdout
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {*KEPT, "params.yaml", "data/check", "data/margin"}
    assert not (tmp_path / "models/gone").exists() and (tmp_path / "models/linked").is_symlink()
    assert (tmp_path / "data/check").read_text() == "params.yaml is valid\n"


def test_check_writes_the_margin_with_all_digits(tmp_path):
    for margin, text in ((1.2345678, "1.2345678"), (DROP, "1"), (100, "100")):
        write_study(tmp_path, changed({"margin": margin}))
        assert run_check(tmp_path, "--clean").returncode == 0
        assert (tmp_path / "data/margin").read_text() == f"{text}\n"


def test_json_is_a_study_too(tmp_path):
    (tmp_path / "params.yaml").write_text(json.dumps(GOOD), encoding="utf-8")
    assert load_study(tmp_path / "params.yaml") == load_study(ROOT / "params.yaml")


def test_the_margin_may_be_missing_and_is_1_point():
    assert validate_study(changed({"margin": DROP}))[0].margin == 1
    assert validate_study(changed({"margin": 0.5}))[0].margin == 0.5


def test_the_keys_of_a_model_override_the_defaults():
    own = {
        "heads/b-one-layer/epochs": 7,
        "heads/b-one-layer/early_stopping": None,
        "probes/b-ridge/train_fraction": 0.5,
    }
    changes = {**own, "training/early_stopping": 3, "training/batch_size": 32}
    study, problems = validate_study(changed(changes))
    assert not problems
    settings = study.heads["b-one-layer"].training(study.training)
    assert (settings.epochs, settings.early_stopping, settings.batch_size) == (7, None, 32)
    assert study.heads["b-two-layers"].training(study.training).early_stopping == 3
    probe = study.probes["b-ridge"].training(study.training)
    assert (probe.train_fraction, probe.class_weights, probe.max_train_per_class) == (0.5, "none", 10)
    assert study.training.epochs == 60


def test_the_l2_strengths_of_a_probe_are_powers_of_ten_unless_given():
    study, _ = validate_study(changed({"probes/one": {"task": "digits-b", "features": "b-fc1", "l2": 0.5}}))
    assert study.probes["b-ridge"].choices == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100])
    assert study.probes["one"].choices == [0.5]


def test_models_are_networks_then_heads_then_probes_then_fine_tunes():
    study, _ = validate_study(GOOD)
    assert list(study.models) == [
        *("a-scratch", "b-scratch", "b-all-layers", "b-one-layer", "b-two-layers", "b-ridge", "b-top-conv"),
    ]


def test_a_new_output_layer_chooses_its_l2_strength_and_other_heads_have_none():
    defaults = TrainingConfig(**GOOD["training"])

    def strengths(**keys):
        return [l2 for _, l2 in HeadConfig(task="t", features="f", **keys).candidates(defaults)]

    assert strengths() == [0.0001, 0.001, 0.01, 0.1]
    assert strengths(hidden=[8]) == strengths(start_from="backbone") == strengths(l2=0.0) == [0.0]
    assert strengths(l2=[0.5, 0.2]) == [0.5, 0.2]
