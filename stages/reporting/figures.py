"""The figures of a task, which compare all its models.

Drawn with matplotlib's objects instead of pyplot: figures share nothing, and no screen is needed.
"""

from dataclasses import dataclass
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

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
    repeats = {model: data.study["models"][model]["accuracies"]["test"] for model in kinds}
    several = len(kinds) > 1
    pictures = []
    with matplotlib.rc_context(STYLE):
        if several:
            pictures += [draw_accuracy(models, repeats, comparison["test"])]
            pictures += [draw_cost(models, content["pareto_fronts"]), draw_times(models)]
        if curves := comparison["learning_curves"]:
            pictures.append(draw_learning_curves(task, curves, comparison["crossovers"], data.metrics))
        if comparison["cut_curves"]:
            pictures.append(draw_cut_curves(task, comparison["cut_curves"], data.metrics, comparison["test"]))
        if several:
            pictures.append(draw_training_curves(models, data.history[data.history["model"].isin(kinds)]))
        if not (pca := data.pca[data.pca["task"] == task]).empty:
            pictures.append(draw_pca(task, content["classes"], pca))
    return pictures


def draw_accuracy(models: TaskModels, repeats: dict[str, list[float]], test: list[dict]) -> Picture:
    """Test accuracy of every model with its interval and single repeats, the highest on top.

    repeats: model -> test accuracy of each repeat. test: comparisons of all pairs on the test images.
    """
    ascending = sorted(models.styles, key=models.accuracy)
    figure = Figure(figsize=(WIDTH, 1.2 + 0.42 * len(ascending)))
    axes = figure.subplots()
    for height, model in enumerate(ascending):
        values, style, marker = models.metrics[model]["test"], models.styles[model], MARKERS[models.kinds[model]]
        axes.plot([values["accuracy_low"], values["accuracy_high"]], [height] * 2, color=style.color, linewidth=2)
        axes.plot(values["accuracy"], height, marker, color=style.color, markeredgecolor=style.edge, markersize=7)
        axes.plot(repeats[model], [height - 0.27] * len(repeats[model]), "|", color="#555555", markersize=6)
    axes.set_yticks(range(len(ascending)), [models.label(model) for model in ascending])
    axes.set_ylim(-0.6, len(ascending) - 0.4)
    axes.grid(visible=False, axis="y")
    percent_axis(axes.xaxis)
    figure.supxlabel("test accuracy: mean, 95 % interval, single repeats (|)", fontsize=9)
    headline(figure, f"{models.task}: {leader(ascending[-1], test)}")
    values = "; ".join(f"{model} {models.accuracy(model):.1%}" for model in reversed(ascending))
    return Picture(
        f"accuracy-{models.task}.png",
        figure,
        "Test accuracy. Overlapping intervals do not show that two models are equally good; the comparison of pairs "
        "decides. ✓ marks the recommended model.",
        f"Test accuracy of the models of {models.task}: {values}.",
    )


def leader(best: str, pairs: list[dict]) -> str:
    """A headline on the model with the highest test accuracy; pairs: comparisons on the test images."""
    similar = sum(best in (pair["a"], pair["b"]) and not pair["distinguishable"] for pair in pairs)
    if not similar:
        return f"{best} is significantly better than every other model"
    return f"{best} leads, but its lead over {similar} other model{'s' if similar > 1 else ''} may be chance"


def draw_training_curves(models: TaskModels, history: pd.DataFrame) -> Picture:
    """Accuracy and loss of all models over the epochs, overlaid."""
    legend = layout_legend([*models.styles])
    figure = Figure(figsize=(WIDTH, 5.0 + legend.height))
    grid = figure.subplots(2, 2, sharex=True, sharey="row")
    for row, measure in zip(grid, ("accuracy", "loss"), strict=True):
        for axes, split in zip(row, ("train", "validation"), strict=True):
            for model, epochs in history.groupby("model", sort=False):
                style = models.styles[model]
                draw_line(axes, epochs, f"{split}_{measure}", style, model)
            axes.set_title(f"{split} {measure}")
    finish_curves(grid)
    headline(figure, f"{models.task}: training curves")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=legend.columns)
    return Picture(
        f"curves-{models.task}.png",
        figure,
        "Training curves of all models. Thick lines: mean over the repeats, up to the end of the shortest one. Thin "
        "lines: single repeats, up to the epoch where training stopped.",
        f"Train and validation accuracy and loss over the epochs for {', '.join(models.styles)}.",
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
        "channel is scaled to variance 1. Classes that are separate here are easy to classify. Classes that overlap "
        "here may be separate in other components.",
        f"Principal components of the features {names}, by class.",
    )
