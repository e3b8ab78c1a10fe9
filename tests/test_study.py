"""The study file: what the check refuses, and in which words."""

import copy
import json
import shutil
import subprocess
import sys
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.core.errors import UserError
from stages.core.stage import run_stage
from stages.core.yaml import read_yaml
from stages.validation.study import load_study, validate_study

ROOT = Path(__file__).parents[1]
GOOD = read_yaml(ROOT / "params.yaml")

SECTIONS = "seed, datasets, folders, tasks, backbones, networks, features, heads, fine_tunes, training"
TRAINING_KEYS = (
    "epochs, batch_size, optimizer, learning_rate, early_stopping, repeats, max_train_per_class, momentum, "
    "weight_decay, schedule, decay, decay_steps, warm_up, reduce_on_plateau, generalization_loss, train_fraction, "
    "class_weights, label_smoothing, mixup, precision"
)
LAYER_KEYS = "hidden, activation, batch_normalization, dropout, l2"
HEAD_KEYS = f"{LAYER_KEYS}, {TRAINING_KEYS}, task, features, cut, kind, start_from, standardize, views"
LAYERS = "conv1, conv2, pool1, conv3, conv4, pool2, flatten, fc1, dropout"
NAME = "it must be a small letter, then small letters, digits and -."
SHA256 = "64 hexadecimal digits, 0 to 9 and a to f."
HELD_OUT = "a share of each class above 0 and below 1, a number of images per class from 2 up, or published."
CLASSES = "a list of classes by number or name, as in [0, 1] or [cat, dog]."
SOURCES = "digits, cifar10, flowers, archive or kaggle (folder or csv stands in section folders)"
UNITS = "a list of whole numbers from 1 to 65536, as in [64, 32], or []."

SMALL = {"source": "digits", "image_size": 16}
OTHER = {"source": "digits", "image_size": 32}
CIFAR10 = {"source": "cifar10", "image_size": 32}
FOLDER = {"source": "folder", "path": "my_images", "image_size": 32}
KAGGLE = {"source": "kaggle", "handle": "owner/birds", "version": 2, "image_size": 32}
ARCHIVE = {"source": "archive", "image_size": 32, "url": "images.zip", "sha256": "0" * 64}
VGG = {"architecture": "vgg16", "weights": "imagenet"}
MOBILENET = {"architecture": "mobilenet_v2", "weights": "imagenet"}

# A change is a dict from the place, with slashes, to the new value; DROP removes the key.
DROP = object()

BAD_STUDIES = [
    # Sections.
    (
        "an unknown section",
        {"head": {}},
        f"head: there is no section of this name (did you mean 'heads'?); accepted: {SECTIONS}.",
    ),
    ("a section named by a number", {7: {}}, f"7: there is no section of this name; accepted: {SECTIONS}."),
    (
        "a missing section",
        {"heads": DROP},
        "heads: this section is missing; give entries by name, or write `heads: {}` for none.",
    ),
    (
        "an empty section",
        {"fine_tunes": None},
        "fine_tunes: an empty value is not accepted; give entries by name, or write `fine_tunes: {}` for none.",
    ),
    (
        "a list for a section",
        {"fine_tunes": ["top"]},
        "fine_tunes: ['top'] is not accepted; give entries by name, or write `fine_tunes: {}` for none.",
    ),
    (
        "no training defaults",
        {"training": DROP},
        f"training: an empty value is not accepted; give keys and values: {TRAINING_KEYS}.",
    ),
    (
        "no model at all",
        {"networks": {}, "heads": {}, "fine_tunes": {}, "features": {}},
        "networks, heads and fine_tunes are all empty; a study needs at least one model.",
    ),
    # The seed.
    ("no seed", {"seed": DROP}, "seed: an empty value is not accepted; it must be a whole number from 0 up."),
    ("text for the seed", {"seed": "one"}, "seed: 'one' is not accepted; it must be a whole number from 0 up."),
    ("a negative seed", {"seed": -1}, "seed: -1 is not accepted; it must be a whole number from 0 up."),
    ("true for the seed", {"seed": True}, "seed: true is not accepted; it must be a whole number from 0 up."),
    # Entries and keys.
    (
        "a dot in a name",
        {"datasets/dig.its": OTHER},
        f"datasets: the name 'dig.its' is not accepted; {NAME}",
    ),
    (
        "a capital in a name",
        {"datasets/Digits": OTHER},
        f"datasets: the name 'Digits' is not accepted; {NAME}",
    ),
    ("a number for a name", {"datasets": {7: OTHER, "digits": OTHER}}, f"datasets: the name 7 is not accepted; {NAME}"),
    (
        "a number in quotes for a name",
        {"datasets/7": OTHER},
        f"datasets: the name '7' is not accepted; {NAME}",
    ),
    (
        "an empty entry",
        {"heads/b-one-layer": None},
        f"heads.b-one-layer: an empty value is not accepted; give keys and values: {HEAD_KEYS}.",
    ),
    (
        "text for an entry",
        {"datasets/digits": "digits"},
        "datasets.digits: 'digits' is not accepted; give keys and values: source.",
    ),
    (
        "an unknown key",
        {"heads/b-one-layer/epoch": 3},
        f"heads.b-one-layer: there is no key 'epoch' (did you mean 'epochs'?); accepted: {HEAD_KEYS}.",
    ),
    (
        "a number for a key",
        {"datasets/digits": {**OTHER, 3: 3}},
        "datasets.digits: there is no key 3; accepted: image_size, resize, source.",
    ),
    (
        "a key of another source",
        {"datasets/digits/url": "images.zip"},
        "datasets.digits: there is no key 'url'; accepted: image_size, resize, source.",
    ),
    (
        "a missing reference",
        {"heads/b-one-layer/features": DROP},
        "heads.b-one-layer: the key 'features' is missing; give the name of an entry.",
    ),
    (
        "a missing training default",
        {"training/epochs": DROP},
        "training: the key 'epochs' is missing; give a whole number from 1 to 100000.",
    ),
    # Types and ranges.
    (
        "text for a whole number",
        {"training/epochs": "sixty"},
        "training.epochs: 'sixty' is not accepted; it must be a whole number from 1 to 100000.",
    ),
    (
        "a fraction for a whole number",
        {"training/epochs": 2.5},
        "training.epochs: 2.5 is not accepted; it must be a whole number from 1 to 100000.",
    ),
    (
        "true for a whole number",
        {"training/repeats": True},
        "training.repeats: true is not accepted; it must be a whole number from 1 to 100.",
    ),
    (
        "text for a number",
        {"training/learning_rate": "1e-3"},
        "training.learning_rate: '1e-3' is not accepted; it must be a number above 0, at most 10.",
    ),
    (
        "a number for text",
        {"features/b-fc1/cut": 3},
        "features.b-fc1.cut: 3 is not accepted; it must be the name of a layer or block, or a list of them.",
    ),
    (
        "a negative batch size",
        {"training/batch_size": -1},
        "training.batch_size: -1 is not accepted; it must be a whole number from 1 up.",
    ),
    (
        "a learning rate of zero",
        {"heads/b-one-layer/learning_rate": 0},
        "heads.b-one-layer.learning_rate: 0 is not accepted; it must be a number above 0, at most 10, or a list of "
        "them.",
    ),
    (
        "a learning rate that is no number",
        {"training/learning_rate": float("nan")},
        "training.learning_rate: nan is not accepted; it must be a number above 0, at most 10.",
    ),
    (
        "early stopping after no epochs",
        {"training/early_stopping": 0},
        "training.early_stopping: 0 is not accepted; it must be a whole number from 1 up, or null.",
    ),
    (
        "null where a value is needed",
        {"heads/b-one-layer/epochs": None},
        "heads.b-one-layer.epochs: an empty value is not accepted; it must be a whole number from 1 to 100000.",
    ),
    (
        "an unknown optimizer",
        {"training/optimizer": "adamm"},
        "training.optimizer: 'adamm' is not accepted; it must be adam, adamw, rmsprop or sgd.",
    ),
    # Datasets.
    (
        "an unknown source",
        {"datasets/digits/source": "digit"},
        f"datasets.digits.source: 'digit' is not accepted; it must be {SOURCES}.",
    ),
    (
        "no source",
        {"datasets/digits/source": DROP},
        f"datasets.digits: the key 'source' is missing; give {SOURCES}.",
    ),
    (
        "an image size no network can take",
        {"datasets/digits/image_size": 4},
        "datasets.digits.image_size: 4 is not accepted; it must be a whole number from 8 to 1024.",
    ),
    (
        "an archive without checksum",
        {"datasets/photos": {key: value for key, value in ARCHIVE.items() if key != "sha256"}},
        "datasets.photos: the checksum is missing; give sha256 (or md5) of the file, as sha256sum prints it.",
    ),
    (
        "an archive without address",
        {"datasets/photos": {**ARCHIVE, "url": ""}},
        "datasets.photos.url: '' is not accepted; it must be a path or an address.",
    ),
    (
        "two checksums of one archive",
        {"datasets/photos": {**ARCHIVE, "md5": "0" * 32}},
        "datasets.photos: sha256 and md5 are two checksums of one file; give one of them.",
    ),
    (
        "an md5 that is none",
        {"datasets/photos": {"source": "archive", "image_size": 32, "url": "images.zip", "md5": "0" * 64}},
        "datasets.photos.md5: '0000000000000000000000000000000000000000000000000000000000000000' is not accepted; it "
        "must be 32 hexadecimal digits, 0 to 9 and a to f.",
    ),
    (
        "an unknown way to make images square",
        {"datasets/digits/resize": "squash"},
        "datasets.digits.resize: 'squash' is not accepted; it must be crop, pad or stretch.",
    ),
    (
        "a Kaggle set without its owner",
        {"datasets/birds": {**KAGGLE, "handle": "birds"}},
        "datasets.birds.handle: 'birds' is not accepted; it must be owner/name, as in the page's address.",
    ),
    (
        "a Kaggle set without version",
        {"datasets/birds": {key: value for key, value in KAGGLE.items() if key != "version"}},
        "datasets.birds: the key 'version' is missing; give a whole number from 1 up.",
    ),
    (
        "a folder among the datasets",
        {"datasets/mine": FOLDER},
        f"datasets.mine.source: 'folder' is not accepted; it must be {SOURCES}.",
    ),
    (
        "an archive among the folders",
        {"folders/mine": ARCHIVE},
        "folders.mine.source: 'archive' is not accepted; it must be folder or csv (digits, cifar10, flowers, "
        "archive or kaggle stands in section datasets).",
    ),
    (
        "a folder without path",
        {"folders/mine": {"source": "folder", "image_size": 32}},
        "folders.mine: the key 'path' is missing; give the path of a folder.",
    ),
    (
        "a folder that holds the project",
        {"folders/mine": {**FOLDER, "path": "."}},
        "folders.mine: path '.' holds the project itself; name a folder that holds the images and nothing else.",
    ),
    (
        "a folder that stages write to",
        {"folders/mine": {**FOLDER, "path": "data/raw/mine"}},
        "folders.mine: path 'data/raw/mine' lies where the stages write; move the images to a folder of their own.",
    ),
    (
        "a folder and a dataset of one name",
        {"folders/digits": FOLDER},
        "folders.digits: the name also stands in datasets; give one of them another name.",
    ),
    # Tasks.
    (
        "one image for a side",
        {"tasks/digits-b/test": 1},
        f"tasks.digits-b.test: 1 is not accepted; it must be {HELD_OUT}",
    ),
    (
        "another word than published",
        {"tasks/digits-b/test": "publishd"},
        f"tasks.digits-b.test: 'publishd' is not accepted; it must be {HELD_OUT}",
    ),
    (
        "published sides of a dataset that publishes none",
        {"tasks/digits-b/test": "published"},
        "tasks.digits-b.test: 'published' is not accepted, because dataset 'digits' publishes no test images (its "
        "splits: none); give a share, or a number of images per class.",
    ),
    (
        "published validation images of CIFAR-10, which has none",
        {
            "datasets/cifar": CIFAR10,
            "tasks/cifar": {"dataset": "cifar", "validation": "published", "test": "published"},
        },
        "tasks.cifar.validation: 'published' is not accepted, because dataset 'cifar' publishes no validation images "
        "(its splits: train, test); give a share, or a number of images per class.",
    ),
    (
        "a class that CIFAR-10 does not have",
        {
            "datasets/cifar": CIFAR10,
            "tasks/cifar": {"dataset": "cifar", "include": ["cat", "hound"], "validation": 0.1, "test": "published"},
        },
        "tasks.cifar.include: hound is not accepted; the classes of 'cifar' are 0 to 9, or airplane, automobile, bird, "
        "cat, deer, dog, frog, horse, ship, truck.",
    ),
    (
        "a new name for a class there is not",
        {"tasks/digits-b/rename": {"ten": "zero"}},
        "tasks.digits-b.rename: ten is not accepted; the classes of 'digits' are 0 to 9.",
    ),
    (
        "a list of new names",
        {"tasks/digits-b/rename": ["dog"]},
        "tasks.digits-b.rename: ['dog'] is not accepted; it must be classes by number or name with their new names, as "
        "in {cane: dog, gatto: cat}.",
    ),
    (
        "a group that is no regular expression",
        {"tasks/digits-b/group": "person(\\d+"},
        "tasks.digits-b: group 'person(\\\\d+' is no regular expression (missing ), unterminated subpattern at "
        "position 6); give one, as in 'patient\\d+'.",
    ),
    (
        "another way with near-duplicates",
        {"tasks/digits-b/near_duplicates": "drop"},
        "tasks.digits-b.near_duplicates: 'drop' is not accepted; it must be report or group.",
    ),
    (
        "at most no images of a class",
        {"tasks/digits-b/max_per_class": 0},
        "tasks.digits-b.max_per_class: 0 is not accepted; it must be a whole number from 1 up, or null.",
    ),
    (
        "a share of nothing",
        {"tasks/digits-b/validation": 0},
        f"tasks.digits-b.validation: 0 is not accepted; it must be {HELD_OUT}",
    ),
    (
        "a share above one",
        {"tasks/digits-b/test": 1.5},
        f"tasks.digits-b.test: 1.5 is not accepted; it must be {HELD_OUT}",
    ),
    (
        "shares that leave nothing",
        {"tasks/digits-b/validation": 0.5},
        "tasks.digits-b: validation 0.5 and test 0.5 leave no images for training; their sum must be below 1.",
    ),
    (
        "include and exclude",
        {"tasks/digits-b/include": [5, 6]},
        "tasks.digits-b: include and exclude do not go together; give one of them.",
    ),
    (
        "a number for a list",
        {"tasks/digits-b/exclude": 5},
        f"tasks.digits-b.exclude: 5 is not accepted; it must be {CLASSES}",
    ),
    (
        "true for a class",
        {"tasks/digits-b/exclude": [True]},
        f"tasks.digits-b.exclude: [true] is not accepted; it must be {CLASSES}",
    ),
    (
        "a negative class",
        {"tasks/digits-b/exclude": [-1]},
        f"tasks.digits-b.exclude: [-1] is not accepted; it must be {CLASSES}",
    ),
    # Names of other entries.
    (
        "a dataset there is not",
        {"features/b-fc1/dataset": "digit"},
        "features.b-fc1.dataset: there is no 'digit' in datasets or folders (did you mean 'digits'?); "
        "accepted: digits.",
    ),
    (
        "a task there is not",
        {"heads/b-one-layer/task": "mnist"},
        "heads.b-one-layer.task: there is no 'mnist' in tasks; accepted: digits-a, digits-b.",
    ),
    (
        "a backbone there is not",
        {"networks/a-scratch/backbone": "four-con"},
        "networks.a-scratch.backbone: there is no 'four-con' in backbones or networks (did you mean 'four-conv'?); "
        "accepted: four-conv, a-scratch, b-scratch, b-all-layers.",
    ),
    (
        "features there are not",
        {"heads/b-one-layer/features": "fc1"},
        "heads.b-one-layer.features: there is no 'fc1' in features (did you mean 'b-fc1'?); accepted: b-fc1, "
        "b-flatten, b-pool1.",
    ),
    (
        "a head there is not",
        {"fine_tunes/b-top-conv/head": "Zzz"},
        "fine_tunes.b-top-conv.head: there is no 'Zzz' in heads; accepted: b-one-layer, b-two-layers.",
    ),
    (
        "a task of another dataset",
        {"datasets/other": OTHER, "networks/a-scratch/dataset": "other"},
        "networks.a-scratch.dataset: 'other' is not accepted; it must be 'digits', as in tasks.digits-a.",
    ),
    (
        "features of another dataset",
        {"datasets/other": OTHER, "features/b-fc1/dataset": "other"},
        "heads.b-one-layer.features: 'b-fc1' is made of dataset 'other'; name features of 'digits', the dataset of "
        "tasks.digits-b.",
    ),
    (
        "a head of another task",
        {"fine_tunes/b-top-conv/task": "digits-a"},
        "fine_tunes.b-top-conv.task: 'digits-a' is not accepted; it must be 'digits-b', as in heads.b-two-layers.",
    ),
    (
        "a backbone that neither head nor features have",
        {"fine_tunes/b-top-conv/backbone": "b-all-layers"},
        "fine_tunes.b-top-conv.backbone: 'b-all-layers' is not accepted; it must be 'a-scratch', as in "
        "features.b-flatten.",
    ),
    (
        "features of another backbone than the head's",
        {"features/b-pool1/backbone": "b-scratch"},
        "fine_tunes.b-top-conv.backbone: 'a-scratch' is not accepted; it must be 'b-scratch', as in features.b-pool1.",
    ),
    (
        "networks in a ring",
        {"networks/a-scratch/backbone": "b-all-layers"},
        "networks.a-scratch.backbone: 'b-all-layers' is not accepted; the network would start from itself "
        "(a-scratch -> b-all-layers -> a-scratch): name an entry of backbones in one of them.",
    ),
    (
        "a network that starts from itself",
        {"networks/a-scratch/backbone": "a-scratch"},
        "networks.a-scratch.backbone: 'a-scratch' is not accepted; the network would start from itself (a-scratch -> "
        "a-scratch): name an entry of backbones in one of them.",
    ),
    (
        "a network and a head of one name",
        {"heads/b-scratch": GOOD["heads"]["b-one-layer"]},
        "networks.b-scratch: the name also stands in heads; give one of them another name.",
    ),
    (
        "a network and a backbone of one name",
        {"networks/four-conv": GOOD["networks"]["b-scratch"]},
        "networks.four-conv: the name also stands in backbones; give one of them another name.",
    ),
    # Layers and image sizes.
    (
        "a cut at no layer",
        {"features/b-fc1/cut": "fc9"},
        f"features.b-fc1.cut: four_conv has no layer 'fc9' (did you mean 'fc1'?); accepted: {LAYERS}.",
    ),
    (
        "unfreezing above the cut",
        {"fine_tunes/b-top-conv/unfreeze": "fc1"},
        "fine_tunes.b-top-conv.unfreeze: four_conv has no layer 'fc1' up to the cut 'flatten' of heads.b-two-layers; "
        "accepted: all, conv1, conv2, pool1, conv3, conv4, pool2, flatten.",
    ),
    (
        "training from no layer",
        {"networks/b-all-layers/trainable": "conv5"},
        "networks.b-all-layers.trainable: four_conv has no layer 'conv5' (did you mean 'conv4'?); accepted: all, head, "
        f"{LAYERS}.",
    ),
    (
        "training random weights from no layer",
        {"networks/b-scratch/trainable": "conv5"},
        "networks.b-scratch.trainable: four_conv has no layer 'conv5' (did you mean 'conv4'?); accepted: all, head, "
        f"{LAYERS}.",
    ),
    (
        "frozen random weights",
        {"networks/b-scratch/trainable": "conv3"},
        "networks.b-scratch.trainable: 'conv3' would freeze random weights; use all.",
    ),
    (
        "features of random weights",
        {"features/b-fc1/backbone": "four-conv"},
        "features.b-fc1.backbone: 'four-conv' has random weights; name a network or a trained backbone.",
    ),
    (
        "images too small for the network",
        {
            "datasets/small": SMALL,
            "backbones/vgg": VGG,
            "features/small": {"dataset": "small", "backbone": "vgg", "cut": "block5_pool"},
        },
        "features.small.dataset: the images of 'small' have 16 pixels a side, but vgg16 needs at least 32; raise "
        "datasets.small.image_size.",
    ),
    (
        "images of another size than a network of fixed size was trained on",
        {"datasets/small": SMALL, "features/small": {"dataset": "small", "backbone": "a-scratch", "cut": "fc1"}},
        "features.small.dataset: the images of 'small' have 16 pixels a side, but backbone 'a-scratch' was trained on "
        "32 and four_conv cannot change its size; use a dataset with image_size: 32.",
    ),
    # Weights.
    (
        "an unknown architecture",
        {"backbones/four-conv/architecture": "vgg17"},
        "backbones.four-conv.architecture: 'vgg17' is not accepted; it must be four_conv, simple_cnn, vgg16, ",
    ),
    (
        "weights that do not exist",
        {"backbones/four-conv/weights": "imagenet"},
        "backbones.four-conv: weights 'imagenet' do not exist for four_conv; accepted: random, or a path or address "
        "with its sha256.",
    ),
    (
        "a weights file without checksum",
        {"backbones/four-conv/weights": "four.weights.h5"},
        "backbones.four-conv: weights 'four.weights.h5' is taken for a file, which needs its sha256; accepted: random, "
        "imagenet, or a path or address with its sha256 (a network of the study is a backbone by its own name).",
    ),
    (
        "a checksum that is none",
        {"backbones/four-conv/weights": "four.weights.h5", "backbones/four-conv/sha256": "abc"},
        f"backbones.four-conv.sha256: 'abc' is not accepted; it must be {SHA256}",
    ),
    (
        "a checksum of random weights",
        {"backbones/four-conv/sha256": "a" * 64},
        "backbones.four-conv: sha256 goes with a file of weights; leave it out with weights: random.",
    ),
    # Settings of a training, each accepted but not with the others.
    (
        "momentum of an optimizer that has none",
        {"heads/b-one-layer/momentum": 0.9},
        "heads.b-one-layer: momentum 0.9 does not go with optimizer adam, only sgd and rmsprop.",
    ),
    (
        "momentum in the defaults of an optimizer that has none",
        {"training/momentum": 0.9},
        "training: momentum 0.9 does not go with optimizer adam, only sgd and rmsprop.",
    ),
    (
        "a warm-up as long as the training",
        {"heads/b-one-layer/warm_up": 200},
        "heads.b-one-layer: warm_up 200 leaves none of 200 epochs; give fewer.",
    ),
    (
        "an unknown schedule",
        {"training/schedule": "linear"},
        "training.schedule: 'linear' is not accepted; it must be constant, exponential or cosine.",
    ),
    (
        "a fraction above one",
        {"heads/b-one-layer/train_fraction": 1.5},
        "heads.b-one-layer.train_fraction: 1.5 is not accepted; it must be a number above 0, at most 1, or null.",
    ),
    (
        "an unknown precision",
        {"features/b-fc1/precision": "float16"},
        "features.b-fc1.precision: 'float16' is not accepted; it must be auto, float32 or bfloat16.",
    ),
    (
        "text for a switch",
        {"heads/b-one-layer/batch_normalization": "yes"},
        "heads.b-one-layer.batch_normalization: 'yes' is not accepted; it must be true or false.",
    ),
    (
        "learning rates of a network",
        {"networks/b-scratch/learning_rate": [0.1, 0.01]},
        "networks.b-scratch.learning_rate: [0.1, 0.01] is not accepted; it must be a number above 0, at most 10.",
    ),
    (
        "no learning rates to choose from",
        {"heads/b-one-layer/learning_rate": []},
        "heads.b-one-layer.learning_rate: [] is not accepted; it must be a number above 0, at most 10, or a list of "
        "them.",
    ),
    # Augmentation.
    (
        "an unknown augmentation",
        {"networks/b-scratch/augmentation": {"rotate": 15}},
        "networks.b-scratch.augmentation: {'rotate': 15} is not accepted; it must be keys and values: rotation, shift, "
        "zoom, shear, flip, noise, brightness, contrast, fill, as in {rotation: 15, flip: horizontal}.",
    ),
    (
        "an augmentation that changes nothing",
        {"features/b-fc1/views": [{"fill": "wrap"}]},
        "features.b-fc1: this augmentation changes nothing; give rotation, shift, zoom or another, or leave it out.",
    ),
    (
        "augmentation of a head",
        {"heads/b-one-layer/augmentation": {"rotation": 15}},
        f"heads.b-one-layer: there is no key 'augmentation' (did you mean 'activation'?); accepted: {HEAD_KEYS}.",
    ),
    (
        "augmentation and features to start from",
        {"fine_tunes/b-top-conv/augmentation": {"rotation": 15}},
        "fine_tunes.b-top-conv.features: with augmentation, training starts from the images, not from 'b-pool1'; name "
        "'b-flatten', those of the head, or leave augmentation out.",
    ),
    (
        "more views than there are",
        {"heads/b-one-layer/views": 2},
        "heads.b-one-layer.views: 2 is not accepted, because features.b-fc1 have 1, the images themselves among them; "
        "give at most so many.",
    ),
    # Several cuts.
    (
        "one layer by two names",
        {"features/b-fc1/cut": ["dropout", "top"], "heads/b-one-layer/cut": "top"},
        "features.b-fc1.cut: 'dropout' and 'top' are one layer, dropout; leave one of them out.",
    ),
    (
        "a head that does not say which cut",
        {"features/b-fc1/cut": ["fc1", "flatten"]},
        "heads.b-one-layer.cut: the key is missing, because features.b-fc1 have several cuts; give one of fc1, "
        "flatten.",
    ),
    (
        "a head at a cut that its features do not have",
        {"heads/b-one-layer/cut": "flatten"},
        "heads.b-one-layer.cut: 'flatten' is not among the cuts of features.b-fc1; accepted: fc1.",
    ),
    (
        "a network at a cut that is no layer",
        {"networks/b-all-layers/cut": "fc9"},
        f"networks.b-all-layers.cut: four_conv has no layer 'fc9' (did you mean 'fc1'?); accepted: {LAYERS}.",
    ),
    (
        "more layers than there are",
        {"fine_tunes/b-top-conv/unfreeze": 8},
        "fine_tunes.b-top-conv.unfreeze: four_conv has fewer than 8 layers up to the cut 'flatten' of "
        "heads.b-two-layers; accepted: all, conv1, conv2, pool1, conv3, conv4, pool2, flatten.",
    ),
    (
        "a network of random weights of which the head is trained",
        {"networks/b-scratch/trainable": "head"},
        "networks.b-scratch.trainable: 'head' would freeze random weights; use all.",
    ),
    # Heads.
    (
        "dense layers of a head that is solved",
        {
            "heads/b-one-layer": {
                **{"task": "digits-b", "features": "b-fc1", "kind": "ridge", "hidden": [8], "dropout": 0.5}
            }
        },
        "heads.b-one-layer: hidden [8] and dropout 0.5 do not go with kind: ridge, one linear layer on standardized "
        "features that is solved; leave them out, or use kind: dense.",
    ),
    (
        "a head that is solved and starts from the backbone",
        {"heads/b-one-layer": {**{"task": "digits-b", "features": "b-fc1", "kind": "ridge", "start_from": "backbone"}}},
        "heads.b-one-layer: start_from: backbone does not go with kind: ridge; leave one of them out.",
    ),
    (
        "no penalty for a head that is solved",
        {"heads/b-one-layer": {"task": "digits-b", "features": "b-fc1", "kind": "ridge", "l2": [0.0, 1.0]}},
        "heads.b-one-layer: l2 0 does not go with kind: ridge; give strengths above 0.",
    ),
    (
        "hidden layers above the backbone's own",
        {"heads/b-two-layers/hidden": [10]},
        "heads.b-two-layers: hidden [10] does not go with start_from: backbone, which brings its own "
        "layers; leave them out, or use start_from: random.",
    ),
    (
        "pooling where there is no image",
        {"features/b-fc1/pooling": "average"},
        "features.b-fc1.pooling: 'average' is not accepted, because the activations of fc1 are no image; use pooling: "
        "none, or cut four_conv at one of conv1, conv2, pool1, conv3, conv4, pool2.",
    ),
    (
        "one class",
        {"tasks/digits-a/include": [3]},
        "tasks.digits-a: include [3] is one class; a task needs at least two.",
    ),
    (
        "features that lack a class of the task",
        {"tasks/digits-b/include": [5, 6, 7, 8, 9], "tasks/digits-b/exclude": None, "features/b-fc1/classes": [5, 7]},
        "heads.b-one-layer.features: 'b-fc1' is not accepted, because features.b-fc1.classes lacks 6, 8, 9 of "
        "tasks.digits-b; add them there, or leave the key out for all classes.",
    ),
    (
        "features that lack a class of the task, which is known by what it leaves out",
        {"features/b-pool1/classes": [5, 6]},
        "fine_tunes.b-top-conv.features: 'b-pool1' is not accepted, because features.b-pool1.classes lacks 7, 8, 9 of "
        "tasks.digits-b; add them there, or leave the key out for all classes.",
    ),
    (
        "a digit that is none",
        {"tasks/digits-a/include": [0, 1, 12]},
        "tasks.digits-a.include: 12 is not accepted; the classes of 'digits' are 0 to 9.",
    ),
    (
        "a class of features that is no digit",
        {"features/b-fc1/classes": [5, 6, 7, 8, 9, "ten"]},
        "features.b-fc1.classes: ten is not accepted; the classes of 'digits' are 0 to 9.",
    ),
    (
        "a fine-tune of everything that names features it cannot start from",
        {"fine_tunes/b-top-conv/unfreeze": "conv1"},
        "fine_tunes.b-top-conv.features: training from 'conv1' upward cannot start from 'b-pool1' (cut pool1, pooling "
        "none); name 'b-flatten', those of the head, to start from the images.",
    ),
    (
        "a fine-tune that cannot start from its features",
        {"fine_tunes/b-top-conv/features": "b-fc1", "features/b-fc1/cut": "conv4"},
        "fine_tunes.b-top-conv.features: training from 'conv3' upward cannot start from 'b-fc1' (cut conv4, pooling "
        "none); name features with pooling: none and a cut at one of conv1, conv2, pool1, or 'b-flatten', those of the "
        "head, to start from the images.",
    ),
    (
        "the backbone's own layers on pooled features",
        {"features/b-flatten/pooling": "max", "features/b-flatten/cut": "pool2"},
        "heads.b-two-layers.start_from: 'backbone' is not accepted, because features.b-flatten has pooling: max; use "
        "features with pooling: none, or start_from: random.",
    ),
    (
        "the backbone's own layers above a cut that other paths pass",
        {
            "backbones/mobile": MOBILENET,
            "features/mobile": {"dataset": "digits", "backbone": "mobile", "cut": "block_2_expand"},
            "heads/mobile": {"task": "digits-a", "features": "mobile", "start_from": "backbone"},
        },
        "heads.mobile.start_from: 'backbone' is not accepted, because other paths pass beside the cut 'block_2_expand' "
        "of features.mobile; use start_from: random, or cut mobilenet_v2 at one of Conv1, bn_Conv1, ",
    ),
    (
        "no units in a hidden layer",
        {"heads/b-one-layer/hidden": [0]},
        f"heads.b-one-layer.hidden: [0] is not accepted; it must be {UNITS}",
    ),
    (
        "dropout of everything",
        {"heads/b-one-layer/dropout": 1},
        "heads.b-one-layer.dropout: 1 is not accepted; it must be a number from 0 to below 1.",
    ),
]
IDS = [name for name, *_ in BAD_STUDIES]

BAD_FILES = {
    "a key given twice": (
        "seed: 0\nseed: 1\n",
        "params.yaml, line 2, column 1: this cannot be read as YAML (found dup",
    ),
    "a bracket left open": ("seed: [0\n", "params.yaml, line 2, column 1: this cannot be read as YAML (expected ','"),
    "a tab": (
        "training:\n\tepochs: 1\n",
        "params.yaml, line 2, column 1: this cannot be read as YAML (found character",
    ),
    "a control character": ("seed: \0\n", "params.yaml: this cannot be read as YAML (unacceptable character"),
    "a list": ("- seed\n", f"['seed'] is no study; it must be a mapping with the sections {SECTIONS}."),
    "nothing": ("", f"an empty value is no study; it must be a mapping with the sections {SECTIONS}."),
    "text": ("hello", f"'hello' is no study; it must be a mapping with the sections {SECTIONS}."),
}


def changed(changes):
    """A copy of the good study with the changes made."""
    study = copy.deepcopy(GOOD)
    for place, value in changes.items():
        *way, last = place.split("/") if isinstance(place, str) else [place]
        section = reduce(getitem, way, study)
        if value is DROP:
            del section[last]
        else:
            section[last] = value
    return study


def write_study(folder, study):
    yaml = YAML(typ="safe", pure=True)
    yaml.sort_base_mapping_type_on_output = False
    yaml.dump(study, folder / "params.yaml")


def run_check(folder):
    return subprocess.run(
        [sys.executable, "-B", "-m", "stages.check"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_study_that_runs_is_one_of_the_ready_studies():
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "studies/digits_class_groups.yaml").read_bytes()


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_ready_study_is_sound(path):
    assert load_study(path).models


@pytest.mark.parametrize(("name", "changes", "sentence"), BAD_STUDIES, ids=IDS)
def test_a_bad_study_is_answered_with_one_sentence(name, changes, sentence):
    study, problems = validate_study(changed(changes))
    assert study is None
    assert len(problems) == 1
    if sentence.endswith("."):
        assert problems[0] == sentence
    else:  # the sentence goes on with a long list
        assert problems[0].startswith(sentence)
        assert problems[0].endswith(".")
        assert "\n" not in problems[0]


@pytest.mark.parametrize(("name", "changes", "sentence"), BAD_STUDIES, ids=IDS)
@pytest.mark.parametrize("arguments", [[], ["digits"]], ids=["all", "one entry"])
def test_no_stage_works_on_a_bad_study(name, changes, sentence, arguments, tmp_path, monkeypatch, capsys):
    write_study(tmp_path, changed(changes))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["prepare.py", *arguments])
    calls = []
    with pytest.raises(SystemExit) as end:
        run_stage(lambda *given: calls.append(given), *(["datasets"] if arguments else []))
    assert end.value.code == 1
    assert not calls
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith(f"prepare: params.yaml has 1 problem:\n  {sentence}")


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_no_study_is_answered_with_its_place(text, message, tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        load_study(Path("params.yaml"))
    sentence = str(error.value).removeprefix("params.yaml has 1 problem:\n  ")
    assert sentence.startswith(message)
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_a_missing_study_is_answered_with_the_way_to_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^params\.yaml is missing; give the path of a study, or copy one of studies"):
        load_study(Path("params.yaml"))


def test_a_folder_and_text_in_another_encoding_are_no_study(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\); give the path of a study\.$"):
        load_study(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("seed: é".encode("latin-1"))
    with pytest.raises(UserError, match=r"is not UTF-8 text; save it as UTF-8\.$"):
        load_study(tmp_path / "latin.yaml")


def test_all_problems_are_listed_at_once(tmp_path):
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


def test_a_reference_to_an_entry_with_a_problem_is_no_second_problem():
    _, problems = validate_study(changed({"datasets/digits/image_size": "large"}))
    assert len(problems) == 1


def test_a_name_that_is_a_number_does_not_disturb_the_search_for_the_nearest():
    _, problems = validate_study(changed({"datasets": {7: OTHER}}))
    assert any("there is no 'digits' in datasets or folders; accepted: 7." in problem for problem in problems)


def test_a_long_value_is_cut():
    _, [problem] = validate_study(changed({"training/epochs": "9" * 1000}))
    assert len(problem) < 160


def test_check_says_that_a_sound_study_is_sound(tmp_path):
    write_study(tmp_path, GOOD)
    done = run_check(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "check: params.yaml is a sound study: 6 models, 3 feature caches\n"


def test_check_says_that_a_folder_is_not_there(tmp_path):
    write_study(tmp_path, changed({"folders/mine": FOLDER}))
    done = run_check(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "check: folders.mine.path: there is no folder 'my_images'; correct it, or put the images there.\n"
    )
    (tmp_path / "my_images").mkdir()
    assert run_check(tmp_path).returncode == 0


@pytest.mark.parametrize("name", ["an unknown key", "networks in a ring"])
def test_check_ends_with_the_sentence_and_writes_nothing(name, tmp_path):
    changes, sentence = next(row[1:] for row in BAD_STUDIES if row[0] == name)
    write_study(tmp_path, changed(changes))
    done = run_check(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"check: params.yaml has 1 problem:\n  {sentence}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "split: stages.split takes one entry; name one of tasks in params.yaml: digits-a, digits-b.\n"),
        (["a", "b"], "split: stages.split takes one entry; name one of tasks in params.yaml: digits-a, digits-b.\n"),
        (["c"], "split: there is no 'c' in tasks; name one of tasks in params.yaml: digits-a, digits-b.\n"),
    ],
)
def test_a_stage_asks_for_one_of_its_entries(arguments, message, tmp_path, monkeypatch, capsys):
    write_study(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["split.py", *arguments])
    with pytest.raises(SystemExit):
        run_stage(lambda *given: pytest.fail("worked"), "tasks")
    assert capsys.readouterr().err == message


def test_a_stage_works_on_the_entry_it_is_given(tmp_path, monkeypatch, capsys):
    write_study(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["split.py", "digits-a"])
    run_stage(lambda study, name: f"validation {study.tasks[name].validation}", "tasks")
    assert capsys.readouterr().out == "split digits-a: validation 0.1\n"


@pytest.mark.parametrize(
    ("command", "section", "entry", "changed"),
    [
        ("head b-one-layer", "heads", "b-one-layer", "heads.b-one-layer"),
        ("head b-one-layer", "heads", "b-two-layers", None),
        ("head b-one-layer", "training", None, "training"),
        ("features b-fc1", "training", None, None),
        ("fine_tune b-top-conv", "heads", "b-two-layers", "heads.b-two-layers"),
        ("prepare digits", "datasets", "digits", "datasets.digits"),
        ("evaluate", "heads", "b-one-layer", "heads"),
        ("report", "heads", "b-one-layer", None),
    ],
)
def test_a_result_whose_settings_changed_meanwhile_is_refused(
    command, section, entry, changed, tmp_path, monkeypatch, capsys
):
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    stage, *arguments = command.split()
    monkeypatch.setattr(sys, "argv", [f"stages/{stage}.py", *arguments])
    own = {"head": ["heads"], "features": ["features"], "fine_tune": ["fine_tunes"], "prepare": ["datasets"]}

    def work(*_):
        study = read_yaml(Path("params.yaml"))
        (study[section][entry] if entry else study[section])["new"] = 1
        Path("params.yaml").write_text(json.dumps(study))
        return "done"

    if changed is None:
        run_stage(work, *own.get(stage, []))
        assert capsys.readouterr().out.endswith(": done\n")
        return
    with pytest.raises(SystemExit) as ended:
        run_stage(work, *own.get(stage, []))
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"{stage}: {changed} changed in params.yaml while this ran, so that ") and not said.out


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-05", 1e-05),
        ("1.0e-5", 1e-05),
        ("3E-4", 3e-4),
        ("0.0001", 1e-4),
        ("12", 12),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("[5, cat]", [5, "cat"]),
    ],
)
def test_values_are_read_as_dvc_writes_them(text, value, tmp_path):
    (tmp_path / "params.yaml").write_text(f"value: {text}\n", encoding="utf-8")
    found = read_yaml(tmp_path / "params.yaml")["value"]
    assert found == value
    assert type(found) is type(value)


def test_json_is_a_study_too(tmp_path):
    (tmp_path / "params.yaml").write_text(json.dumps(GOOD), encoding="utf-8")
    assert load_study(tmp_path / "params.yaml") == load_study(ROOT / "params.yaml")


def test_a_model_trains_with_its_own_keys_over_the_defaults():
    own = {"heads/b-one-layer/epochs": 7, "heads/b-one-layer/early_stopping": None}
    changes = {**own, "training/early_stopping": 3, "training/batch_size": 32}
    study, problems = validate_study(changed(changes))
    assert not problems
    settings = study.heads["b-one-layer"].training(study.training)
    assert (settings.epochs, settings.early_stopping, settings.batch_size) == (7, None, 32)
    assert study.heads["b-two-layers"].training(study.training).early_stopping == 3
    assert study.training.epochs == 60


def test_models_are_networks_then_heads_then_fine_tunes():
    study, _ = validate_study(GOOD)
    assert list(study.models) == [
        "a-scratch",
        "b-scratch",
        "b-all-layers",
        "b-one-layer",
        "b-two-layers",
        "b-top-conv",
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_is_sound_and_says_what_it_needs_and_costs_and_what_to_expect(path):
    assert load_study(path).models
    head = path.read_text(encoding="utf-8").split("\nseed:")[0]
    assert all(line.startswith("#") or not line for line in head.splitlines())
    for word in ("Needs:", "Costs", "Expect"):
        assert word in head
