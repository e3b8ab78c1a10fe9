"""The pictures of a task: all its models beside each other.

Drawn with matplotlib's objects, not pyplot: nothing is shared between figures and no screen is needed.
"""

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from stages.reporting.curve_figures import draw_depths, draw_learning
from stages.reporting.model_figures import draw_line, finish_curves
from stages.reporting.style import (
    MARKERS,
    NAMES_UP_TO,
    PALETTE,
    STYLE,
    WIDTH,
    LineStyle,
    Picture,
    headline,
    legend_of,
    line_styles,
    log_axis,
    panel_title,
    percent_axis,
    shortened,
)


def draw_task(
    task: str, of_task: dict, study: dict, metrics: dict, curves: pd.DataFrame, maps: pd.DataFrame
) -> list[Picture]:
    """All pictures of one task.

    of_task: its part of comparisons.json. study, metrics: what evaluate wrote. curves: the history of all models. maps:
    where images lie in features.
    """
    found = study["tasks"][task]
    looks = line_styles(found["models"])
    pictures = []
    with matplotlib.rc_context(STYLE):
        if len(looks) > 1:
            pictures.append(draw_accuracy(task, of_task, study, metrics, looks))
            pictures.append(draw_cost(task, of_task, study, metrics, looks))
        if found["learning_curves"]:
            pictures.append(draw_learning(task, found["learning_curves"], of_task["crossings"], metrics))
        if found["depths"]:
            pictures.append(draw_depths(task, found["depths"], metrics, of_task["test"]))
        if len(looks) > 1:
            pictures.append(draw_curves(task, curves[curves["model"].isin(looks)], looks))
        if not (of_task_maps := maps[maps["task"] == task]).empty:
            pictures.append(draw_maps(task, found["classes"], of_task_maps))
    return pictures


def draw_accuracy(task: str, of_task: dict, study: dict, metrics: dict, looks: dict[str, LineStyle]) -> Picture:
    """Test accuracy of every model with its interval and single repeats, the highest on top."""
    models = sorted(looks, key=lambda model: metrics[model]["test"]["accuracy"])
    figure = Figure(figsize=(WIDTH, 1.2 + 0.42 * len(models)))
    axes = figure.subplots()
    for height, model in enumerate(models):
        test, single = metrics[model]["test"], study["models"][model]["accuracies"]["test"]
        look, marker = looks[model], MARKERS[study["models"][model]["kind"]]
        axes.plot([test["accuracy_low"], test["accuracy_high"]], [height] * 2, color=look.color, linewidth=2)
        axes.plot(test["accuracy"], height, marker, color=look.color, markeredgecolor=look.edge, markersize=7)
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


def draw_cost(task: str, of_task: dict, study: dict, metrics: dict, looks: dict[str, LineStyle]) -> Picture:
    """Test accuracy against seconds: the training alone, and with all that the model is built on."""
    legend = legend_of([*looks])
    figure = Figure(figsize=(WIDTH, 3.1 + legend.height))
    axes = figure.subplots()
    for model, look in looks.items():
        color = look.color
        test, cost = metrics[model]["test"], metrics[model]["cost"]
        marker = MARKERS[study["models"][model]["kind"]]
        seconds = [max(cost["seconds"], 1e-3), max(cost["total_seconds"], 1e-3)]
        axes.plot(seconds, [test["accuracy"]] * 2, color=color, linewidth=1, linestyle=":")
        axes.plot(seconds[0], test["accuracy"], marker, color=color, markerfacecolor="white", markersize=6)
        axes.plot([seconds[1]] * 2, [test["accuracy_low"], test["accuracy_high"]], color=color, linewidth=1.5)
        name = f"{model} ✓" if model == of_task["recommended"] else model
        axes.plot(
            seconds[1], test["accuracy"], marker, color=color, markeredgecolor=look.edge, markersize=7, label=name
        )
    log_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    axes.set_xlabel("seconds, one repeat (log scale)")
    axes.set_ylabel("test accuracy")
    headline(figure, f"{task}: accuracy, and the seconds that it takes")
    figure.legend(loc="outside lower center", ncols=legend.columns)
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


def draw_curves(task: str, curves: pd.DataFrame, looks: dict[str, LineStyle]) -> Picture:
    """Accuracy and loss of all models over the epochs, overlaid."""
    legend = legend_of([*looks])
    figure = Figure(figsize=(WIDTH, 5.0 + legend.height))
    grid = figure.subplots(2, 2, sharex=True, sharey="row")
    for row, measure in zip(grid, ("accuracy", "loss"), strict=True):
        for axes, split in zip(row, ("train", "validation"), strict=True):
            for model, of_model in curves.groupby("model", sort=False):
                draw_line(axes, of_model, f"{split}_{measure}", looks[model].color, model, looks[model].line)
            axes.set_title(f"{split} {measure}")
    finish_curves(grid)
    headline(figure, f"{task}: how the models learn")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=legend.columns)
    return Picture(
        f"curves-{task}.png",
        figure,
        "All models over the epochs. Thick: mean over the repeats as long as all of them run; thin: single repeats. "
        "Lines end where training stopped.",
        f"Train and validation accuracy and loss over the epochs for {', '.join(looks)}.",
    )


def draw_maps(task: str, classes: list[str], maps: pd.DataFrame) -> Picture:
    """Validation images in the plane of the two principal components of each cache of features, colored by class."""
    panels = list(maps.groupby(["features", "cut"], sort=False))
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    named = len(classes) <= NAMES_UP_TO
    figure = Figure(figsize=(WIDTH, WIDTH / columns * rows + 0.4 + (0.2 * (len(classes) // 3 + 1) if named else 0)))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, ((features, cut), of_panel) in zip(grid.flat, panels, strict=False):
        for label, name in enumerate(classes):
            points = of_panel[of_panel["class"] == name]
            shape = "o^sDv"[label // len(PALETTE) % 5]  # where the colors are used up
            color = PALETTE[label % len(PALETTE)]
            axes.plot(points["x"], points["y"], shape, color=color, markersize=3, label=shortened(name))
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
