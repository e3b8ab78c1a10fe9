"""The figures of a task, which compare all its models.

Drawn with matplotlib's objects instead of pyplot: figures share nothing, and no screen is needed.
"""

from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stages.evaluation.formatting import percent
from stages.reporting.cost_figures import draw_cost, draw_times
from stages.reporting.curve_figures import draw_cut_curves, draw_learning_curves
from stages.reporting.model_figures import draw_line, finish_curves
from stages.reporting.style import (
    MARKERS,
    NAMES_UP_TO,
    PALETTE,
    STYLE,
    WIDTH,
    Picture,
    TaskModels,
    headline,
    layout_legend,
    line_styles,
    panel_title,
    percent_axis,
    shortened,
)


@dataclass(frozen=True)
class ReportData:
    """What evaluate and compare wrote: study.json, metrics.json, comparisons.json, and three tables of these names."""

    study: dict[str, Any]
    metrics: dict[str, Any]
    comparisons: dict[str, Any]
    history: pd.DataFrame
    pca: pd.DataFrame
    reliability: pd.DataFrame


def draw_task(task: str, data: ReportData) -> list[Picture]:
    """All figures of one task."""
    content, comparison = data.study["tasks"][task], data.comparisons[task]
    kinds = {model: data.study["models"][model]["kind"] for model in content["models"]}
    models = TaskModels(task, line_styles(content["models"]), kinds, data.metrics, comparison["recommended"])
    repeats = {model: data.study["models"][model]["accuracies"] for model in kinds}
    trained = [model for model, kind in kinds.items() if kind != "probe"]  # a probe is solved, without epochs
    several = len(kinds) > 1
    pictures = []
    with matplotlib.rc_context(STYLE):
        if several:
            pictures.append(draw_accuracy(models, repeats))
            pictures += [*draw_cost(models, content["pareto_fronts"]), draw_times(models)]
        if curves := comparison["learning_curves"]:
            pictures.append(draw_learning_curves(task, curves, comparison["crossovers"], data.metrics))
        if comparison["cut_curves"]:
            pictures.append(draw_cut_curves(task, comparison["cut_curves"], data.metrics, comparison["test"]))
        if several and trained:
            pictures.append(draw_validation_curves(models, data.history[data.history["model"].isin(trained)]))
        if not (pca := data.pca[data.pca["task"] == task]).empty:
            pictures.append(draw_pca(task, content["classes"], pca))
    return pictures


def draw_accuracy(models: TaskModels, repeats: dict[str, dict[str, list[float]]]) -> Picture:
    """Validation and test accuracy of every model with interval and single repeats, in the order of the tables.

    repeats: model -> split -> accuracy of each repeat.
    """
    names = models.ranked
    figure = Figure(figsize=(WIDTH, 1.3 + 0.42 * len(names)))
    panels = dict(zip(("validation", "test"), figure.subplots(1, 2, sharex=True, sharey=True), strict=True))
    shares = [value for model in names for split in panels for value in repeats[model][split]]
    width = 0.03 * (max(shares) - min(shares))
    for split, axes in panels.items():
        for row, model in enumerate(names):
            values, style, marker = models.metrics[model][split], models.styles[model], MARKERS[models.kinds[model]]
            axes.plot([values["accuracy_low"], values["accuracy_high"]], [row] * 2, color=style.color, linewidth=2)
            axes.plot(values["accuracy"], row, marker, color=style.color, markeredgecolor=style.edge, markersize=6)
            single = sorted(repeats[model][split])
            levels = stacked(single, width)
            step = min(0.1, 0.22 / max(1, *levels))
            axes.plot(single, [row + 0.25 + step * level for level in levels], ".", color="#555555", markersize=3)
        axes.set_title(f"{split} accuracy")
        axes.grid(visible=False, axis="y")
        percent_axis(axes.xaxis)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    panels["validation"].set_yticks(range(len(names)), [models.label(model) for model in names])
    panels["validation"].set_ylim(len(names) - 0.4, -0.6)
    figure.supxlabel("mean, 95 % interval, single repeats (dots)", fontsize=9)
    headline(figure, f"{models.task}: accuracy{recommendation(models)}")
    values = "; ".join(
        f"{model} {percent(models.metrics[model]['validation']['accuracy'])} and {percent(models.accuracy(model))}"
        for model in names
    )
    return Picture(
        f"accuracy-{models.task}.png",
        figure,
        "Accuracy on the validation images, on which models are chosen, and on the test images. Overlapping intervals "
        "do not show that two models are equally good; the table of differences shows more. ✓ marks the recommended "
        "model.",
        f"Validation and test accuracy of the models of {models.task}: {values}.",
    )


def recommendation(models: TaskModels) -> str:
    """The end of a headline; empty if no validation accuracy is significantly above that of the largest class."""
    parts = [models.metrics[model]["validation"] for model in models.styles]
    if all(part["accuracy_low"] <= part["majority_rate"] for part in parts):
        return ""
    return f"; {models.recommended} is recommended"


def stacked(values: list[float], width: float) -> list[int]:
    """A level for each of ascending values, from 0, so that values on one level are more than `width` apart."""
    levels: list[int] = []
    last: list[float] = []  # value of each level
    for value in values:
        free = [level for level, before in enumerate(last) if value - before > width]
        level = free[0] if free else len(last)
        last[level : level + 1] = [value]
        levels.append(level)
    return levels


def draw_validation_curves(models: TaskModels, history: pd.DataFrame) -> Picture:
    """Mean validation accuracy of all models over the epochs. history: of the models that have epochs."""
    names = [model for model in models.styles if model in set(history["model"])]
    legend = layout_legend(names)
    figure = Figure(figsize=(WIDTH, 2.7 + legend.height))
    axes = figure.subplots()
    for model in names:
        draw_line(axes, history[history["model"] == model], "validation_accuracy", models.styles[model], model, False)
    finish_curves(np.array([[axes]]))
    headline(figure, f"{models.task}: validation accuracy by epoch")
    figure.legend(loc="outside lower center", ncols=legend.columns)
    return Picture(
        f"curves-{models.task}.png",
        figure,
        "Validation accuracy over the epochs: mean over the repeats, up to the end of the shortest one. Single "
        "repeats, and the training images, are in the figures of each model.",
        f"Validation accuracy over the epochs for {', '.join(names)}.",
    )


def draw_pca(task: str, classes: list[str], pca: pd.DataFrame) -> Picture:
    """Validation images in the first two principal components of the features at each cut layer, colored by class."""
    panels = list(pca.groupby(["features", "cut"], sort=False))
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    named = len(classes) <= NAMES_UP_TO
    figure = Figure(figsize=(WIDTH, WIDTH / columns * rows + 0.4 + (0.2 * (len(classes) // 3 + 1) if named else 0)))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, ((features, cut), images) in zip(grid.flat, panels, strict=False):
        for label, name in enumerate(classes):
            points = images[images["class"] == name]
            marker = "o^sDv"[label // len(PALETTE) % 5]  # once the colors are used up
            color = PALETTE[label % len(PALETTE)]
            axes.plot(points["x"], points["y"], marker, color=color, markersize=3, label=shortened(name))
        panel_title(axes, f"{features} at {cut}")
        axes.set_xlabel(f"{100 * images['share_x'].iloc[0]:.0f} % of the variance", fontsize=8)
        axes.set_ylabel(f"{100 * images['share_y'].iloc[0]:.0f} %", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    headline(figure, f"{task}: principal components of the features")
    if named:
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    names = ", ".join(f"{features} at {cut}" for (features, cut), _ in panels)
    return Picture(
        f"pca-{task}.png",
        figure,
        "The features of at most 400 validation images, projected on their first two principal components. Each "
        "channel is scaled to variance 1. Classes that are separate here are probably easy to classify. Classes "
        "that overlap here may be separate in other components.",
        f"Principal components of the features {names}, by class.",
    )
