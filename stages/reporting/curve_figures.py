"""Figures of models that differ in one setting: learning curves and cut curves."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from stages.core.wording import counted
from stages.evaluation.formatting import percent
from stages.reporting.style import WIDTH, LineStyle, Picture, headline, layout_legend, line_style, percent_axis

OFFSET = 0.06  # between several curves at one cut layer, whose intervals would overlap
FACTOR = 1.03  # the same for numbers of images, on a log scale


def draw_learning_curves(task: str, curves: list[dict], crossovers: list[dict], metrics: dict) -> Picture:
    """Test accuracy against training images per class, one line for every curve; significant crossovers are marked.

    curves, crossovers: as in comparisons.json.
    """
    legend = layout_legend([curve["name"] for curve in curves])
    figure = Figure(figsize=(WIDTH, 3.0 + legend.height))
    axes = figure.subplots()
    for number, curve in enumerate(curves):
        shift = FACTOR ** (number - (len(curves) - 1) / 2)
        draw_curve(axes, [images * shift for images in curve["models"].values()], curve, metrics, line_style(number))
    ticks = sorted({round(images) for curve in curves for images in curve["models"].values()})
    significant = [crossover for crossover in crossovers if crossover["significant"]]
    for crossover in significant:
        axes.axvline(crossover["images"], color="#555555", linewidth=1, linestyle="--")
    for images in thin_out(sorted(crossover["images"] for crossover in significant), ticks):
        axes.text(images, 0.02, f" {images:.0f}", transform=axes.get_xaxis_transform(), color="#555555", fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(thin_out(ticks, ticks)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    percent_axis(axes.yaxis)
    axes.set_xlabel("training images per class (log scale)")
    axes.set_ylabel("test accuracy")
    title = "accuracy by number of training images"
    if len(significant) == 1:
        title = overtaking(significant[0])
    headline(figure, f"{task}: {title}")
    figure.legend(loc="outside lower center", ncols=legend.columns)
    values = "; ".join(
        f"{curve['name']}: "
        + ", ".join(
            f"{percent(metrics[model]['test']['accuracy'])} with {images:.0f}"
            for model, images in curve["models"].items()
        )
        for curve in curves
    )
    caption = (
        "Learning curves: models that differ only in the number of training images, with 95 % intervals. A curve is "
        "named after its model with the most images."
    )
    return Picture(
        f"learning-{task}.png",
        figure,
        " ".join([caption, *map(crossover_sentence, crossovers)]),
        f"Test accuracy against training images per class. {values}.",
    )


def overtaking(crossover: dict) -> str:
    """Where one learning curve crosses another."""
    images = counted(crossover["images"], "image")
    return f"{crossover['after']} overtakes {crossover['before']} at about {images} per class"


def crossover_sentence(crossover: dict) -> str:
    """Where two learning curves cross, and whether that may be chance."""
    if crossover["significant"]:
        return f"{overtaking(crossover)}. The difference is significant on both sides."
    return f"{overtaking(crossover)}, but this may be chance: the difference is not significant on both sides."


def thin_out(values: list[float], axis: list[float]) -> list[float]:
    """Those of ascending values whose labels do not overlap on a log scale from the first to the last of `axis`."""
    kept = values[:1]
    for value in values[1:]:
        if value > kept[-1] * (axis[-1] / axis[0]) ** (1 / 11):
            kept.append(value)
    return kept


def draw_cut_curves(task: str, cut_curves: dict[str, dict], metrics: dict, test: list[dict]) -> Picture:
    """Test accuracy against the highest frozen layer, one panel for every architecture, one line per curve.

    cut_curves, test: as in comparisons.json.
    """
    legend = layout_legend([curve["name"] for group in cut_curves.values() for curve in group["curves"]])
    figure = Figure(figsize=(WIDTH, 0.8 + 2.6 * len(cut_curves) + legend.height))
    panels = figure.subplots(len(cut_curves), 1, squeeze=False)[:, 0]
    values = []
    for axes, (architecture, group) in zip(panels, cut_curves.items(), strict=True):
        curves = group["curves"]
        frozen = sorted({layers for curve in curves for layers in curve["models"].values()})
        names = ["none", *group["layers"]]
        for number, curve in enumerate(curves):
            shift = OFFSET * (number - (len(curves) - 1) / 2)
            positions = [frozen.index(layers) + shift for layers in curve["models"].values()]
            draw_curve(axes, positions, curve, metrics, line_style(number))
            values += [
                f"{model} at {names[layers]} {percent(metrics[model]['test']['accuracy'])}"
                for model, layers in curve["models"].items()
            ]
        # Many long names would overlap.
        slanted = {"rotation": 30, "ha": "right"} if len(frozen) > 4 else {}
        axes.set_xticks(
            range(len(frozen)), [f"{names[layers]}\n({layers})" for layers in frozen], fontsize=8, **slanted
        )
        axes.set_xlim(-0.4, len(frozen) - 0.6)
        percent_axis(axes.yaxis)
        axes.set_title(architecture)
        axes.set_ylabel("test accuracy")
    panels[-1].set_xlabel("highest frozen layer (number of frozen layers)")
    headline(figure, f"{task}: {cut_title(cut_curves, metrics, test)}")
    figure.legend(loc="outside lower center", ncols=legend.columns)
    return Picture(
        f"cuts-{task}.png",
        figure,
        "Models that differ only in the highest frozen layer of the backbone, with 95 % intervals. A curve is named "
        "after its model with the most frozen layers. A head replaces the layers above, unless it starts from them.",
        f"Test accuracy against frozen layers: {'; '.join(values)}.",
    )


def cut_title(cut_curves: dict[str, dict], metrics: dict, test: list[dict]) -> str:
    """The best cut of a single curve, if it is distinguishably the best; otherwise the subject of the figure."""
    curves = [(curve, group["layers"]) for group in cut_curves.values() for curve in group["curves"]]
    curve, layers = curves[0]
    best = max(curve["models"], key=lambda model: metrics[model]["test"]["accuracy"])
    pairs = [
        pair for pair in test if {pair["a"], pair["b"]} <= curve["models"].keys() and best in (pair["a"], pair["b"])
    ]
    if len(curves) > 1 or not all(pair["distinguishable"] for pair in pairs):
        return "accuracy by highest frozen layer"
    highest = ["none", *layers][curve["models"][best]]
    return f"accuracy is highest with {highest} as the highest frozen layer"


def draw_curve(axes: Axes, positions: list[float], curve: dict, metrics: dict, style: LineStyle) -> None:
    """Test accuracies with their intervals, joined by a line."""
    test = [metrics[model]["test"] for model in curve["models"]]
    axes.plot(
        positions,
        [values["accuracy"] for values in test],
        style.line,
        color=style.color,
        marker="o",
        markersize=5,
        markeredgecolor=style.edge,
        label=curve["name"],
    )
    lows, highs = [values["accuracy_low"] for values in test], [values["accuracy_high"] for values in test]
    axes.vlines(positions, lows, highs, color=style.color)
