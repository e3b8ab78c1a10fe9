"""The pictures of the report, in one style. Small, so that they can be read on a telephone as they are.

Drawn with matplotlib's objects, not pyplot: nothing is shared between figures and no screen is needed.
"""

import textwrap
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

WIDTH = 4.6  # inches; 9 points are then about 10 pixels on a page 390 pixels wide
# Okabe & Ito (2008), Color Universal Design; without yellow, which is faint on white.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = {"network": "o", "head": "s", "fine-tune": "D"}
STYLE = {
    "figure.dpi": 140,
    "savefig.dpi": 140,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.titlesize": 9.5,
    "figure.titleweight": "bold",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.parse_math": False,  # a class may be called `$x`
}
NUMBERS_UP_TO, NAMES_UP_TO = 10, 20  # classes, in a confusion matrix


@dataclass(frozen=True)
class Picture:
    """A figure with its file name, and in words what it shows, for those who cannot see it."""

    name: str
    figure: Figure
    caption: str
    alt: str


@dataclass(frozen=True)
class Look:
    """How a model is drawn wherever it appears; where the colours are used up, line and edge tell models apart."""

    colour: str
    line: str
    edge: str


def look_of(place: int) -> Look:
    """The look of the model at this place of its task, from 0."""
    rounds, colour = divmod(place, len(PALETTE))
    line, edge = [("-", PALETTE[colour]), ("--", "#000000"), (":", "#888888")][min(rounds, 2)]
    return Look(PALETTE[colour], line, edge)


def draw_task(
    task: str,
    of_task: dict,
    study: dict,
    metrics: dict,
    curves: pd.DataFrame,
    confusion: dict[str, pd.DataFrame],
    maps: pd.DataFrame,
) -> list[Picture]:
    """All pictures of one task.

    of_task: its part of comparisons.json. study, metrics: what evaluate wrote. curves: the history of all models.
    confusion: model -> actual and predicted class of every test image. maps: where images lie in features.
    """
    models = study["tasks"][task]["models"]
    looks = {model: look_of(place) for place, model in enumerate(models)}
    curves = curves[curves["model"].isin(models)]
    pictures = []
    with matplotlib.rc_context(STYLE):
        if len(models) > 1:
            pictures.append(draw_accuracy(task, of_task, study, metrics, looks))
            pictures.append(draw_cost(task, of_task, study, metrics, looks))
            pictures.append(draw_curves(task, curves, looks))
        pictures.append(draw_confusion(task, study["tasks"][task]["classes"], confusion, models))
        pictures.append(draw_models(task, curves, looks))
        if not (of_task_maps := maps[maps["task"] == task]).empty:
            pictures.append(draw_maps(task, study["tasks"][task]["classes"], of_task_maps))
    return pictures


def draw_maps(task: str, classes: list[str], maps: pd.DataFrame) -> Picture:
    """Validation images in the plane of the two principal components of each cache of features, coloured by class."""
    panels = list(maps.groupby(["features", "cut"], sort=False))
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    named = len(classes) <= NAMES_UP_TO
    figure = Figure(figsize=(WIDTH, WIDTH / columns * rows + 0.4 + (0.2 * (len(classes) // 3 + 1) if named else 0)))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, ((features, cut), of_panel) in zip(grid.flat, panels, strict=False):
        for label, name in enumerate(classes):
            points = of_panel[of_panel["class"] == name]
            shape = "o^sDv"[label // len(PALETTE) % 5]  # where the colours are used up
            colour = PALETTE[label % len(PALETTE)]
            axes.plot(points["x"], points["y"], shape, color=colour, markersize=3, label=shortened(name))
        panel_title(axes, f"{features} at {cut}")
        axes.set_xlabel(f"{100 * of_panel['share_x'].iloc[0]:.0f} % of the variance", fontsize=8)
        axes.set_ylabel(f"{100 * of_panel['share_y'].iloc[0]:.0f} %", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    headline(figure, f"{task}: how far the features part the classes by themselves")
    if named:
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    listed = ", ".join(f"{features} at {cut}" for (features, cut), _ in panels)
    return Picture(
        f"maps-{task}.png",
        figure,
        "At most 400 validation images in the two directions in which the features vary most (principal components), "
        "each channel scaled to variance 1. Classes that lie apart here are easy for a head; others may be apart in "
        "other directions.",
        f"Principal components of the features {listed}, by class.",
    )


def draw_accuracy(task: str, of_task: dict, study: dict, metrics: dict, looks: dict[str, Look]) -> Picture:
    """Test accuracy of every model with its interval and single repeats, the highest on top."""
    models = sorted(looks, key=lambda model: metrics[model]["test"]["accuracy"])
    figure = Figure(figsize=(WIDTH, 1.2 + 0.42 * len(models)))
    axes = figure.subplots()
    for height, model in enumerate(models):
        test, single = metrics[model]["test"], study["models"][model]["accuracies"]["test"]
        look, marker = looks[model], MARKERS[study["models"][model]["kind"]]
        axes.plot([test["accuracy_low"], test["accuracy_high"]], [height] * 2, color=look.colour, linewidth=2)
        axes.plot(test["accuracy"], height, marker, color=look.colour, markeredgecolor=look.edge, markersize=7)
        axes.plot(single, [height - 0.27] * len(single), "|", color="#555555", markersize=6)
    labels = [f"{model} ✓" if model == of_task["recommended"] else model for model in models]
    axes.set_yticks(range(len(models)), labels)
    axes.set_ylim(-0.6, len(models) - 0.4)
    axes.grid(visible=False, axis="y")
    percent_axis(axes.xaxis)
    figure.supxlabel("test accuracy: mean, 95 % interval, single repeats (|)", fontsize=9)
    headline(figure, f"{task}: {leader(models[-1], of_task['test'])}")
    listed = "; ".join(f"{model} {metrics[model]['test']['accuracy']:.1%}" for model in reversed(models))
    return Picture(
        f"accuracy-{task}.png",
        figure,
        "Accuracy on the test images. Bars that overlap may still belong to models that differ, and bars that do not "
        "overlap to lucky ones: the comparison of pairs decides. ✓ is the recommended model.",
        f"Test accuracy of the models of {task}: {listed}.",
    )


def leader(best: str, pairs: list[dict]) -> str:
    """What can be said of the model with the highest test accuracy; pairs: the comparisons on the test images."""
    level = sum(best in (pair["a"], pair["b"]) and not pair["distinguishable"] for pair in pairs)
    if not level:
        return f"{best} is right most often"
    others = "another model cannot" if level == 1 else f"{level} others cannot"
    return f"{best} leads, {others} be told apart from it"


def draw_cost(task: str, of_task: dict, study: dict, metrics: dict, looks: dict[str, Look]) -> Picture:
    """Test accuracy against seconds: the training alone, and with all that the model is built on."""
    figure = Figure(figsize=(WIDTH, 3.1 + 0.2 * (len(looks) // 2)))
    axes = figure.subplots()
    for model, look in looks.items():
        colour = look.colour
        test, cost = metrics[model]["test"], metrics[model]["cost"]
        marker = MARKERS[study["models"][model]["kind"]]
        seconds = [max(cost["seconds"], 1e-3), max(cost["total_seconds"], 1e-3)]
        axes.plot(seconds, [test["accuracy"]] * 2, color=colour, linewidth=1, linestyle=":")
        axes.plot(seconds[0], test["accuracy"], marker, color=colour, markerfacecolor="white", markersize=6)
        axes.plot([seconds[1]] * 2, [test["accuracy_low"], test["accuracy_high"]], color=colour, linewidth=1.5)
        name = f"{model} ✓" if model == of_task["recommended"] else model
        axes.plot(
            seconds[1], test["accuracy"], marker, color=colour, markeredgecolor=look.edge, markersize=7, label=name
        )
    log_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    axes.set_xlabel("seconds, one repeat (log scale)")
    axes.set_ylabel("test accuracy")
    headline(figure, f"{task}: accuracy, and the seconds that it takes")
    figure.legend(loc="outside lower center", ncols=2)
    listed = "; ".join(
        f"{model} {metrics[model]['test']['accuracy']:.1%} in {metrics[model]['cost']['total_seconds']:.1f} s"
        for model in looks
    )
    return Picture(
        f"cost-{task}.png",
        figure,
        "Up and left is better. Filled: seconds with all that the model is built on; hollow: its own training, which "
        "is what it costs where the rest is already there.",
        f"Test accuracy against total seconds for the models of {task}: {listed}.",
    )


def draw_curves(task: str, curves: pd.DataFrame, looks: dict[str, Look]) -> Picture:
    """Accuracy and loss of all models over the epochs, overlaid."""
    figure = Figure(figsize=(WIDTH, 5.0 + 0.2 * (len(looks) // 2)))
    grid = figure.subplots(2, 2, sharex=True, sharey="row")
    for row, measure in zip(grid, ("accuracy", "loss"), strict=True):
        for axes, split in zip(row, ("train", "validation"), strict=True):
            for model, of_model in curves.groupby("model", sort=False):
                draw_line(axes, of_model, f"{split}_{measure}", looks[model].colour, model, looks[model].line)
            axes.set_title(f"{split} {measure}")
    finish_curves(grid)
    headline(figure, f"{task}: how the models learn")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return Picture(
        f"curves-{task}.png",
        figure,
        "All models over the epochs. Thick: mean over the repeats as long as all of them run; thin: single repeats. "
        "Lines end where training stopped.",
        f"Train and validation accuracy and loss over the epochs for {', '.join(looks)}.",
    )


def draw_models(task: str, curves: pd.DataFrame, looks: dict[str, Look]) -> Picture:
    """Train against validation, a row of panels for every model."""
    figure = Figure(figsize=(WIDTH, 1.1 + 1.5 * len(looks)))
    grid = figure.subplots(len(looks), 2, sharex=True, sharey="col", squeeze=False)
    for row, (model, look) in zip(grid, looks.items(), strict=True):
        of_model = curves[curves["model"] == model]
        for axes, measure in zip(row, ("accuracy", "loss"), strict=True):
            draw_line(axes, of_model, f"train_{measure}", "#888888", "train", "--")
            draw_line(axes, of_model, f"validation_{measure}", look.colour, "validation", "-")
            panel_title(axes, f"{model}: {measure}" if measure == "accuracy" else measure)
    headline(figure, f"{task}: training (dashed) against validation")
    finish_curves(grid.T)
    return Picture(
        f"models-{task}.png",
        figure,
        "Each model by itself. Validation far below train means that it has learned its training images by heart; "
        "a validation loss that rises means that it trained too long. The train line is a mean over the epoch while "
        "the weights change, with dropout, so it can start below the validation line.",
        f"Train and validation accuracy and loss over the epochs, one row each for {', '.join(looks)}.",
    )


def draw_line(axes: Axes, history: pd.DataFrame, column: str, colour: str, label: str, line: str) -> None:
    """The mean over the repeats up to the epoch all of them reach, and the single repeats."""
    table = history.pivot(index="epoch", columns="repeat", values=column).replace([np.inf, -np.inf], np.nan)
    if table.shape[1] > 1:
        axes.plot(table.index, table, color=colour, linewidth=0.7, alpha=0.45, linestyle=line)
    shortest = history.groupby("repeat")["epoch"].max().min()
    mean = table.loc[:shortest].mean(axis=1)
    marker = "o" if len(mean) == 1 else None  # a line of one point would not be seen
    axes.plot(mean.index, mean, color=colour, linewidth=1.8, label=label, linestyle=line, marker=marker)


def finish_curves(grid: np.ndarray) -> None:
    """The axes of accuracy (first row) and loss (second row) over epochs."""
    for axes in grid[0]:
        percent_axis(axes.yaxis)
    for axes in grid[1]:
        log_axis(axes.yaxis)
    longest = max(axes.dataLim.xmax for axes in grid.flat)
    for axes in grid.flat:
        # Models may train for 10 or for 1,000 epochs; on a linear axis the short ones could not be seen.
        axes.set_xlim(0.9, 1.1 * max(longest, 2))
        log_axis(axes.xaxis)
        if axes.get_subplotspec().is_last_row():
            axes.set_xlabel("epoch (log scale)")


def draw_confusion(task: str, classes: list[str], confusion: dict[str, pd.DataFrame], models: list[str]) -> Picture:
    """The share of each actual class (row) that is taken for each class (column), for every model."""
    columns = min(2, len(models))
    rows = -(-len(models) // columns)
    figure = Figure(figsize=(WIDTH, (WIDTH / 2 if columns > 1 else 3.6) * rows + 0.3))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    weakest = []
    for axes, model in zip(grid.flat, models, strict=False):
        counts = pd.crosstab(confusion[model]["actual"], confusion[model]["predicted"], normalize="index")
        shares = counts.reindex(index=classes, columns=classes, fill_value=0).to_numpy()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        panel_title(axes, model)
        label_classes(axes, classes)
        if len(classes) <= NUMBERS_UP_TO:
            write_shares(axes, shares)
        lowest = int(shares.diagonal().argmin())
        weakest.append(f"{model} is weakest on {classes[lowest]!r} ({shares[lowest, lowest]:.0%} right)")
    for axes in grid.flat[len(models) :]:
        axes.set_visible(False)
    headline(figure, f"{task}: what the classes are taken for, in %")
    figure.supxlabel("taken for", fontsize=9)
    figure.supylabel("actual class", fontsize=9)
    return Picture(
        f"confusion-{task}.png",
        figure,
        "What each class of the test images is taken for by the kept repeat, in % of the class; columns in "
        "the order of the rows: the diagonal is right.",
        f"Confusion matrices on the test images: {'; '.join(weakest)}.",
    )


def headline(figure: Figure, text: str) -> None:
    """A title over the whole width, in two lines where one is too short."""
    figure.suptitle("\n".join(textwrap.wrap(text, 54)), x=0.01, ha="left")


def panel_title(axes: Axes, text: str) -> None:
    """The title of one panel of two side by side; smaller where it would not fit."""
    axes.set_title(text, fontsize=STYLE["axes.titlesize"] * min(1, 20 / len(text)))


def label_classes(axes: Axes, classes: list[str]) -> None:
    """Class names, cut short; none where they would overlap."""
    axes.grid(visible=False)
    if len(classes) > NAMES_UP_TO:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    names = [shortened(name) for name in classes]
    size = 8.5 if len(classes) <= NUMBERS_UP_TO else 6.5
    axes.set_yticks(range(len(classes)), names, fontsize=size)
    # Columns stand in the order of the rows: long names once are enough.
    short = max(map(len, names)) <= 2
    axes.set_xticks(range(len(classes)), names if short else [""] * len(classes), fontsize=size)


def shortened(name: str) -> str:
    """A class name of at most 13 characters on one line; what is left out is in the middle, as ends often differ."""
    name = " ".join(name.split())
    return name if len(name) <= 13 else f"{name[:6]}…{name[-6:]}"


def write_shares(axes: Axes, shares: np.ndarray) -> None:
    """Whole per cents in the cells that are not 0."""
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            colour = "white" if share > 0.5 else "black"
            size = 8 if len(shares) <= 6 else 6.5
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=size)


def percent_axis(axis: Axis) -> None:
    """Shares as per cents."""
    axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))


def log_axis(axis: Axis) -> None:
    """A log scale with plain numbers, not powers of ten; to be set when everything is drawn."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    subdivisions = (1.0, 2.0, 5.0) if high / low < 200 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subdivisions, numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
