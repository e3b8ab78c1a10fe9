"""The figures of one model: its training curves, confusion matrix and reliability."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from stages.evaluation.formatting import percent
from stages.reporting.style import NAMES_UP_TO, STYLE, WIDTH, LineStyle, Picture, log_axis, percent_axis, shortened

FEWEST_IN_BIN = 10  # predictions; the accuracy of fewer is mostly chance
NUMBERS_UP_TO = 10  # classes, in a confusion matrix
TRAIN_STYLE = LineStyle("#888888", "--", "#888888")


def draw_model(
    model: str,
    style: LineStyle,
    history: pd.DataFrame,
    reliability: tuple[pd.DataFrame, tuple[float | None, float | None]],
    confusion: tuple[pd.DataFrame, list[str]],
) -> list[Picture]:
    """The figures of a model; without its training if the history is empty, as for a probe.

    history: the rows of the model in the table that evaluate wrote. reliability: its rows, and the calibration error
    before and after. confusion: actual and predicted class of every test image; the classes.
    """
    with matplotlib.rc_context(STYLE):
        return [
            *([] if history.empty else [draw_training(model, history, style)]),
            draw_confusion(model, *confusion),
            draw_reliability(model, *reliability, style),
        ]


def draw_training(model: str, history: pd.DataFrame, style: LineStyle) -> Picture:
    """Training against validation: accuracy and loss over the epochs."""
    # Fixed margins: computing the layout would take most of the report's time if there are many models.
    figure = Figure(figsize=(WIDTH, 1.9), layout="none")
    grid = figure.subplots(1, 2, squeeze=False)
    figure.subplots_adjust(left=0.12, right=0.98, bottom=0.25, top=0.88, wspace=0.3)
    for axes, measure in zip(grid[0], ("accuracy", "loss"), strict=True):
        draw_line(axes, history, f"train_{measure}", TRAIN_STYLE, "train")
        draw_line(axes, history, f"validation_{measure}", LineStyle(style.color, "-", style.edge), "validation")
        axes.set_title(measure)
    finish_curves(grid.T)
    grid[0][0].legend(loc="best")
    return Picture(
        f"training-{model}.png",
        figure,
        "Accuracy and loss over the epochs. Dashed: training; solid: validation; thin lines: single repeats.",
        f"Train and validation accuracy and loss of {model} over the epochs.",
    )


def draw_reliability(
    model: str, reliability: pd.DataFrame, errors: tuple[float | None, float | None], style: LineStyle
) -> Picture:
    """The reliability diagram (DeGroot & Fienberg 1983), before and after calibration.

    reliability: rows of bins of confidence. errors: the calibration error before and after; None if unknown.
    """
    figure = Figure(figsize=(WIDTH, 2.3), layout="none")
    accuracy, share = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.14, right=0.96, bottom=0.2, top=0.89, wspace=0.35)
    accuracy.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    # Before: hollow and wide; after: filled and small, so that both are visible where they coincide.
    points = [
        {"color": "#666666", "linestyle": "--", "markersize": 7, "markerfacecolor": "none", "linewidth": 1},
        {"color": style.color, "linestyle": "-", "markersize": 3.5, "linewidth": 1},
    ]
    bars = [{"width": 0.09, "fill": False, "edgecolor": "#666666"}, {"width": 0.045, "color": style.color}]
    for calibrated, bins in reliability.groupby("calibrated"):
        enough = bins[bins["images"] >= FEWEST_IN_BIN]
        accuracy.plot(enough["confidence"], enough["accuracy"], marker="o", **points[calibrated])
        label = "after calibration" if calibrated else "before"
        share.bar(bins["center"], bins["images"] / bins["images"].sum(), label=label, **bars[calibrated])
    for axes in (accuracy, share):
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02 if axes is accuracy else 0, 1.02)
        axes.set_xlabel("predicted probability")
        for axis in (axes.xaxis, axes.yaxis):
            percent_axis(axis)
            axis.set_major_locator(FixedLocator([0, 0.5, 1]))
        axes.tick_params(labelsize=8)
    accuracy.set_title("accuracy")
    share.set_title("share of the images")
    share.legend(loc="upper left", fontsize=7.5, handlelength=1.2, borderaxespad=0)
    before, after = ("unknown" if error is None else percent(error) for error in errors)
    return Picture(
        f"reliability-{model}.png",
        figure,
        "Reliability on the test images, all repeats. Left: accuracy by the probability of the predicted class; on the "
        "gray line a model is as often correct as it is certain. Right: how many images have this probability. Bins "
        f"with fewer than {FEWEST_IN_BIN} predictions have no point. Calibration error: {before} before, {after} after "
        "calibration.",
        f"Reliability of {model} on the test images: calibration error {before} before and {after} after calibration.",
    )


def draw_confusion(model: str, confusion: pd.DataFrame, classes: list[str]) -> Picture:
    """The confusion matrix: for every actual class (row) the share that is predicted as each class (column)."""
    counts = pd.crosstab(confusion["actual"], confusion["predicted"], normalize="index")
    shares = counts.reindex(index=classes, columns=classes, fill_value=0).to_numpy()
    figure = Figure(figsize=(WIDTH, 0.75 * WIDTH), layout="none")
    axes = figure.subplots()
    figure.subplots_adjust(left=0.26, right=0.98, bottom=0.14, top=0.92)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    label_classes(axes, classes)
    if len(classes) <= NUMBERS_UP_TO:
        write_shares(axes, shares)
    else:
        percent_axis(figure.colorbar(image, ax=axes).ax.yaxis)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("actual class")
    axes.set_title("% of the actual class, exported repeat")
    weakest, confusions = int(shares.diagonal().argmin()), frequent_confusions(shares, classes)
    return Picture(
        f"confusion-{model}.png",
        figure,
        "Confusion matrix of the exported repeat on the test images, in % of the actual class. Columns are in the "
        f"order of the rows, so the diagonal is correct.{confusions}",
        f"Confusion matrix of {model} on the test images: lowest recall {100 * shares[weakest, weakest]:.0f} % for "
        f"{classes[weakest]!r}.{confusions}",
    )


def frequent_confusions(shares: np.ndarray, classes: list[str]) -> str:
    """A sentence with the at most three most frequent confusions; shares: of each actual class."""
    wrong = shares * ~np.eye(len(classes), dtype=bool)
    cells = [divmod(int(cell), len(classes)) for cell in np.argsort(-wrong, axis=None, kind="stable")[:3]]
    confusions = [
        f"{classes[actual]} predicted as {classes[predicted]} ({100 * wrong[actual, predicted]:.0f} %)"
        for actual, predicted in cells
        if wrong[actual, predicted] > 0
    ]
    return f" Most frequent confusions: {', '.join(confusions)}." if confusions else ""


def label_classes(axes: Axes, classes: list[str]) -> None:
    """Class names, shortened; none if they would overlap."""
    axes.grid(visible=False)
    if len(classes) > NAMES_UP_TO:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    names = [shortened(name) for name in classes]
    size = 8.5 if len(classes) <= NUMBERS_UP_TO else 6.5
    axes.set_yticks(range(len(classes)), names, fontsize=size)
    # Columns are in the order of the rows: long names need not be repeated.
    short = max(map(len, names)) <= 2
    axes.set_xticks(range(len(classes)), names if short else [""] * len(classes), fontsize=size)


def write_shares(axes: Axes, shares: np.ndarray) -> None:
    """Whole percentages in the cells that are not 0."""
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            color = "white" if share > 0.5 else "black"
            size = 8 if len(shares) <= 6 else 6.5
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=color, fontsize=size)


def draw_line(
    axes: Axes, history: pd.DataFrame, column: str, style: LineStyle, label: str, single: bool = True
) -> None:
    """The mean over the repeats up to the last epoch of the shortest one, by default with the single repeats."""
    table = history.pivot(index="epoch", columns="repeat", values=column).replace([np.inf, -np.inf], np.nan)
    if single and table.shape[1] > 1:
        axes.plot(table.index, table, color=style.color, linewidth=0.7, alpha=0.45, linestyle=style.line)
    shortest = history.groupby("repeat")["epoch"].max().min()
    mean = table.loc[:shortest].mean(axis=1)
    marker = "o" if len(mean) == 1 else None  # a line of one point is invisible
    axes.plot(mean.index, mean, color=style.color, linewidth=1.8, label=label, linestyle=style.line, marker=marker)


def finish_curves(grid: np.ndarray) -> None:
    """Set up the axes of accuracy (first row) and loss (second row, if any) over epochs."""
    for axes in grid[0]:
        percent_axis(axes.yaxis)
    for axes in grid[1:].flat:
        log_axis(axes.yaxis)
    longest = max(axes.dataLim.xmax for axes in grid.flat)
    for axes in grid.flat:
        # Models may train for 10 or for 1,000 epochs; on a linear axis the short ones would be invisible.
        axes.set_xlim(0.9, 1.1 * max(longest, 2))
        log_axis(axes.xaxis)
        if axes.get_subplotspec().is_last_row():
            axes.set_xlabel("epoch (log scale)")
