"""The pictures of one model: how it was trained, and what it takes the classes for."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.reporting.style import NAMES_UP_TO, STYLE, WIDTH, LineStyle, Picture, log_axis, percent_axis, shortened

NUMBERS_UP_TO = 10  # classes, in a confusion matrix


def draw_model(
    model: str, history: pd.DataFrame, confusion: pd.DataFrame, classes: list[str], look: LineStyle
) -> list[Picture]:
    """The pictures of a model. history: of the model; confusion: actual and predicted class of every test image."""
    with matplotlib.rc_context(STYLE):
        return [draw_training(model, history, look), draw_confusion(model, confusion, classes)]


def draw_training(model: str, history: pd.DataFrame, look: LineStyle) -> Picture:
    """Training against validation: accuracy and loss over the epochs."""
    # Fixed margins: a layout that is computed would take most of the report's time where there are many models.
    figure = Figure(figsize=(WIDTH, 1.9), layout="none")
    grid = figure.subplots(1, 2, squeeze=False)
    figure.subplots_adjust(left=0.12, right=0.98, bottom=0.25, top=0.88, wspace=0.3)
    for axes, measure in zip(grid[0], ("accuracy", "loss"), strict=True):
        draw_line(axes, history, f"train_{measure}", "#888888", "train", "--")
        draw_line(axes, history, f"validation_{measure}", look.color, "validation", "-")
        axes.set_title(measure)
    finish_curves(grid.T)
    grid[0][0].legend(loc="best")
    return Picture(
        f"training-{model}.png",
        figure,
        "Accuracy and loss over the epochs: training dashed, validation in color; thin lines are single repeats.",
        f"Train and validation accuracy and loss of {model} over the epochs.",
    )


def draw_confusion(model: str, confusion: pd.DataFrame, classes: list[str]) -> Picture:
    """The share of each actual class (row) that is taken for each class (column)."""
    counts = pd.crosstab(confusion["actual"], confusion["predicted"], normalize="index")
    shares = counts.reindex(index=classes, columns=classes, fill_value=0).to_numpy()
    figure = Figure(figsize=(WIDTH, 0.75 * WIDTH), layout="none")
    axes = figure.subplots()
    figure.subplots_adjust(left=0.26, right=0.98, bottom=0.14, top=0.98)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    label_classes(axes, classes)
    if len(classes) <= NUMBERS_UP_TO:
        write_shares(axes, shares)
    else:
        percent_axis(figure.colorbar(image, ax=axes).ax.yaxis)
    axes.set_xlabel("taken for")
    axes.set_ylabel("actual class")
    lowest, common = int(shares.diagonal().argmin()), commonest(shares, classes)
    return Picture(
        f"confusion-{model}.png",
        figure,
        "What the kept repeat takes each class of the test images for, in % of the class; columns in the order of the "
        f"rows: the diagonal is right.{common}",
        f"Confusion matrix of {model} on the test images: weakest on {classes[lowest]!r} ({shares[lowest, lowest]:.0%} "
        f"right).{common}",
    )


def commonest(shares: np.ndarray, classes: list[str]) -> str:
    """In words, the at most three classes that are most often taken for another one; shares: of each actual class."""
    wrong = shares * ~np.eye(len(classes), dtype=bool)
    places = [divmod(int(place), len(classes)) for place in np.argsort(-wrong, axis=None, kind="stable")[:3]]
    listed = [
        f"{classes[actual]} for {classes[taken]} ({wrong[actual, taken]:.0%})"
        for actual, taken in places
        if wrong[actual, taken] > 0
    ]
    return f" Most often it takes {', '.join(listed)}." if listed else ""


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


def write_shares(axes: Axes, shares: np.ndarray) -> None:
    """Whole per cents in the cells that are not 0."""
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            color = "white" if share > 0.5 else "black"
            size = 8 if len(shares) <= 6 else 6.5
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=color, fontsize=size)


def draw_line(axes: Axes, history: pd.DataFrame, column: str, color: str, label: str, line: str) -> None:
    """The mean over the repeats up to the epoch all of them reach, and the single repeats."""
    table = history.pivot(index="epoch", columns="repeat", values=column).replace([np.inf, -np.inf], np.nan)
    if table.shape[1] > 1:
        axes.plot(table.index, table, color=color, linewidth=0.7, alpha=0.45, linestyle=line)
    shortest = history.groupby("repeat")["epoch"].max().min()
    mean = table.loc[:shortest].mean(axis=1)
    marker = "o" if len(mean) == 1 else None  # a line of one point would not be seen
    axes.plot(mean.index, mean, color=color, linewidth=1.8, label=label, linestyle=line, marker=marker)


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
