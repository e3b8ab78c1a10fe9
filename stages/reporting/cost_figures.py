"""The figures of what the models of a task cost: time, and accuracy against training and inference."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from stages.evaluation.formatting import duration
from stages.reporting.style import MARKERS, WIDTH, Picture, TaskModels, headline, layout_legend, percent_axis

LIGHT = "#bbbbbb"
FRONT_COLOR = "#555555"
# Cost of metrics.json: label of its axis, and the number that is 1 there.
AXES = {
    "total_training_multiply_adds": ("multiply-adds in training, billions (log scale)", 1e9),
    "multiply_adds": ("multiply-adds per image in use, millions (log scale)", 1e6),
}


def draw_times(models: TaskModels) -> Picture:
    """Bars of the total time of training, with the share of the model itself, and of the time per image."""
    ascending = sorted(models.styles, key=models.accuracy)
    figure = Figure(figsize=(WIDTH, 1.6 + 0.52 * len(ascending)))
    training, use = figure.subplots(2, 1)
    costs = [models.metrics[model]["cost"] for model in ascending]
    colors = [models.styles[model].color for model in ascending]
    own, total = ([cost[key] for cost in costs] for key in ("seconds", "total_seconds"))
    training.barh(range(len(costs)), total, color=LIGHT, height=0.6)
    training.barh(range(len(costs)), own, color=colors, height=0.6)
    use.barh(range(len(costs)), [cost["milliseconds_per_image"] for cost in costs], color=colors, height=0.6)
    finish_bars(training, models, ascending, [duration(seconds) for seconds in total])
    finish_bars(use, models, ascending, [f"{cost['milliseconds_per_image']:.3g} ms" for cost in costs])
    training.set_title("total time of one training, seconds")
    use.set_title("time per image, milliseconds")
    headline(figure, f"{models.task}: measured time")
    values = "; ".join(
        f"{model} {duration(seconds)} and {cost['milliseconds_per_image']:.3g} ms per image"
        for model, seconds, cost in zip(ascending, total, costs, strict=True)
    )
    return Picture(
        f"time-{models.task}.png",
        figure,
        "Measured time. Above: training of one repeat; gray: what the model is built on. Below: from pixels to "
        "probabilities, one image at a time. Models are in the order of their test accuracy.",
        f"Time of training and of use of the models of {models.task}: {values}.",
    )


def finish_bars(axes: Axes, models: TaskModels, names: list[str], values: list[str]) -> None:
    """Names on the left of horizontal bars, and their values on the right."""
    axes.set_yticks(range(len(names)), [models.label(name) for name in names], fontsize=8)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(visible=False, axis="y")
    lengths = [max(bar.get_width() for bar in axes.patches[number :: len(names)]) for number in range(len(names))]
    for height, (length, value) in enumerate(zip(lengths, values, strict=True)):
        axes.text(length, height, f" {value}", va="center", fontsize=8)
    axes.set_xlim(0, 1.25 * max(lengths))  # space for the values


def draw_cost(models: TaskModels, fronts: dict[str, list[str]]) -> Picture:
    """Test accuracy against the cost of training and of use. fronts: cost -> the models on its Pareto front."""
    legend = layout_legend([*models.styles, "Pareto front"])
    figure = Figure(figsize=(WIDTH, 5.4 + legend.height))
    panels = figure.subplots(2, 1)
    for axes, (cost, front) in zip(panels, fronts.items(), strict=True):
        label, unit = AXES[cost]
        prices = {model: max(models.metrics[model]["cost"][cost], 1) / unit for model in models.styles}
        for model, style in models.styles.items():
            test, marker = models.metrics[model]["test"], MARKERS[models.kinds[model]]
            axes.plot(
                [prices[model]] * 2, [test["accuracy_low"], test["accuracy_high"]], color=style.color, linewidth=1
            )
            filled = {"color": style.color, "markeredgecolor": style.edge, "markersize": 7}
            axes.plot(prices[model], models.accuracy(model), marker, label=models.label(model), **filled)
        draw_front(axes, [(prices[model], models.accuracy(model)) for model in front])
        price_axis(axes, list(prices.values()))
        percent_axis(axes.yaxis)
        axes.set_xlabel(label)
        axes.set_ylabel("test accuracy")
    panels[0].set_title("accuracy and the cost of training")
    panels[1].set_title("accuracy and the cost of use")
    headline(figure, f"{models.task}: accuracy and cost")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=legend.columns)
    names = " and ".join(
        f"{', '.join(front)} ({use})" for front, use in zip(fronts.values(), ("training", "use"), strict=True)
    )
    return Picture(
        f"cost-{models.task}.png",
        figure,
        "Better models are further up, cheaper ones further left. Training includes everything that the model is built "
        "on. Circled models are on the Pareto front: no other model is both cheaper and more accurate. Multiply-adds "
        "are the same on every machine.",
        f"Test accuracy against multiply-adds for the models of {models.task}. On the Pareto front: {names}.",
    )


def price_axis(axes: Axes, prices: list[float]) -> None:
    """A log scale with plain numbers. Models on one backbone cost nearly the same: they are drawn in one place."""
    middle, half = math.sqrt(min(prices) * max(prices)), max(1.15 * math.sqrt(max(prices) / min(prices)), 2.3)
    low, high = middle / half, middle * half
    steps = (1, 2, 5) if high / low < 200 else (1,)
    every = 1 + math.floor(math.log10(high / low) / 8)  # at most about eight ticks
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1, every)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([step * 10.0**decade for decade in decades for step in steps]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def draw_front(axes: Axes, points: list[tuple[float, float]]) -> None:
    """Circles around the models on the front, and a line: the best accuracy at no more than a cost."""
    prices, accuracies = zip(*points, strict=True)
    axes.plot(prices, accuracies, color=FRONT_COLOR, linestyle=":", linewidth=1.2, drawstyle="steps-post", zorder=1)
    circles = {"markerfacecolor": "none", "markeredgecolor": FRONT_COLOR, "markersize": 12}
    axes.plot(prices, accuracies, "o", linestyle="none", label="Pareto front", **circles)
