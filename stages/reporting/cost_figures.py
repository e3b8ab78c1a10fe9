"""The figures of what the models of a task cost: time, and accuracy against training and inference."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from stages.evaluation.formatting import duration, percent
from stages.evaluation.shortfall import SAME_COST
from stages.reporting.point_labels import Size, place_labels
from stages.reporting.style import MARKERS, WIDTH, Picture, TaskModels, headline, percent_axis, shortened

LIGHT = "#bbbbbb"
FRONT_COLOR = "#555555"
FRONT = {"color": FRONT_COLOR, "linestyle": ":", "linewidth": 1.2, "marker": "o", "markersize": 12}
FRONT |= {"markerfacecolor": "none", "markeredgecolor": FRONT_COLOR, "drawstyle": "steps-post"}
# Cost of metrics.json: its name, label of its axis, and the number that is 1 there.
AXES = {
    "total_training_multiply_adds": ("training", "multiply-adds in training, billions (log scale)", 1e9),
    "multiply_adds": ("use", "multiply-adds per image in use, millions (log scale)", 1e6),
}


def draw_times(models: TaskModels) -> Picture:
    """Bars of the total time of training, with the share of the model itself, and of the time per image."""
    names = models.ranked
    figure = Figure(figsize=(WIDTH, 1.9 + 0.52 * len(names)))
    training, use = figure.subplots(2, 1)
    costs = [models.metrics[model]["cost"] for model in names]
    colors = [models.styles[model].color for model in names]
    own, total = ([cost[key] for cost in costs] for key in ("seconds", "total_seconds"))
    training.barh(range(len(costs)), total, color=LIGHT, height=0.6)
    training.barh(range(len(costs)), own, color=colors, height=0.6)
    use.barh(range(len(costs)), [cost["milliseconds_per_image"] for cost in costs], color=colors, height=0.6)
    times = [training_time(*pair) for pair in zip(own, total, strict=True)]
    finish_bars(training, models, names, times)
    finish_bars(use, models, names, [f"{cost['milliseconds_per_image']:.3g} ms" for cost in costs])
    training.set_title("total time of one training, seconds")
    use.set_title("time per image, milliseconds")
    headline(figure, f"{models.task}: measured time")
    patches = [Patch(color=FRONT_COLOR), Patch(color=LIGHT)]
    labels = ["the model itself (its color)", "what it is built on: base network, features, head"]
    figure.legend(patches, labels, loc="outside lower center", ncols=1)
    values = "; ".join(
        f"{model} {time} and {cost['milliseconds_per_image']:.3g} ms per image"
        for model, time, cost in zip(names, times, costs, strict=True)
    )
    similar = (
        f" In multiply-adds, the models are within a factor of {SAME_COST}: no figure compares them with accuracy."
    )
    return Picture(
        f"time-{models.task}.png",
        figure,
        "Measured time. Above: training of one repeat: the model itself (its color) and what it is built on "
        "(gray). Below: from pixels to probabilities, one image at a time."
        + ("" if differing_costs(models) else similar),
        f"Time of training and of use of the models of {models.task}: {values}.",
    )


def training_time(own: float, total: float) -> str:
    """The seconds of a model itself and of what it is built on, if anything: `0.2 s + 42.8 s`."""
    return duration(own) if total <= own else f"{duration(own)} + {duration(total - own)}"


def finish_bars(axes: Axes, models: TaskModels, names: list[str], values: list[str]) -> None:
    """Names on the left of horizontal bars, and their values on the right; the first name is on top."""
    axes.set_yticks(range(len(names)), [models.label(name) for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    lengths = [max(bar.get_width() for bar in axes.patches[number :: len(names)]) for number in range(len(names))]
    for height, (length, value) in enumerate(zip(lengths, values, strict=True)):
        axes.text(length, height, f" {value}", va="center", fontsize=8)
    axes.set_xlim(0, (1.15 + 0.03 * max(map(len, values))) * max(lengths))  # space for the values


def draw_cost(models: TaskModels, fronts: dict[str, list[str]]) -> list[Picture]:
    """Test accuracy against the cost of training and of use, each in a panel if the costs of the models differ.

    fronts: cost -> the models on its Pareto front. No picture if neither cost differs.
    """
    panels = differing_costs(models)
    if not panels:
        return []
    size = Size(WIDTH - 0.8, 1.8 + 0.07 * len(models.styles))  # of a panel, in inches
    below, above = 0.75, 0.4
    height = len(panels) * (size.height + 0.85) + below
    figure = Figure(figsize=(WIDTH, height), layout="none")
    for number, cost in enumerate(panels):
        name, label, unit = AXES[cost]
        bottom = height - above - (number + 1) * (size.height + 0.85) + 0.85 - 0.25
        axes = figure.add_axes((0.65 / WIDTH, bottom / height, size.width / WIDTH, size.height / height))
        draw_prices(
            axes, size, models, {model: price / unit for model, price in prices_of(models, cost).items()}, fronts[cost]
        )
        axes.set_xlabel(label)
        axes.set_title(f"accuracy and the cost of {name}")
    headline(figure, f"{models.task}: accuracy and cost")
    kinds = {kind: Line2D([], [], color="#888888", marker=MARKERS[kind], linestyle="none") for kind in MARKERS}
    handles = {kind: handle for kind, handle in kinds.items() if kind in models.kinds.values()}
    handles["Pareto front"] = Line2D([], [], **FRONT)
    figure.legend(handles.values(), handles, loc="lower center", ncols=3)
    omitted = [AXES[cost][0] for cost in AXES if cost not in panels]
    notes = [
        f" The cost of {name} is not drawn: that of all models is within a factor of {SAME_COST}." for name in omitted
    ]
    names = " and ".join(f"{', '.join(fronts[cost])} ({AXES[cost][0]})" for cost in panels)
    values = "; ".join(f"{model} {percent(models.accuracy(model))}" for model in models.ranked)
    picture = Picture(
        f"cost-{models.task}.png",
        figure,
        "Better models are further up, cheaper ones further left. Training includes everything that the model is built "
        "on. A model is on the Pareto front (circles) if no other model is both cheaper and more accurate on the test "
        "images; the dotted line is the accuracy that can be had for a cost. Multiply-adds are the same on every "
        f"machine.{''.join(notes)}",
        f"Test accuracy against multiply-adds for the models of {models.task}: {values}. On the Pareto front: {names}.",
    )
    return [picture]


def differing_costs(models: TaskModels) -> list[str]:
    """The costs of `AXES` in which the models differ by more than what counts as the same cost."""
    values = {cost: prices_of(models, cost).values() for cost in AXES}
    return [cost for cost, prices in values.items() if max(prices) > SAME_COST * min(prices)]


def prices_of(models: TaskModels, cost: str) -> dict[str, float]:
    """One of the costs of `AXES` of each model; at least 1, for a log scale."""
    return {model: max(models.metrics[model]["cost"][cost], 1) for model in models.styles}


def draw_prices(axes: Axes, size: Size, models: TaskModels, prices: dict[str, float], front: list[str]) -> None:
    """A labeled point for every model, and the front. size: of the axes. prices: of each model."""
    price_axis(axes, list(prices.values()))
    accuracies = {model: models.accuracy(model) for model in prices}
    spread = max(max(accuracies.values()) - min(accuracies.values()), 0.02)
    axes.set_ylim(min(accuracies.values()) - 0.2 * spread, max(accuracies.values()) + 0.2 * spread)
    percent_axis(axes.yaxis)
    axes.set_ylabel("test accuracy")
    axes.plot([prices[model] for model in front], [accuracies[model] for model in front], **FRONT, zorder=1)
    points = []
    for model, style in models.styles.items():
        filled = {"color": style.color, "markeredgecolor": style.edge, "markersize": 6}
        axes.plot(prices[model], accuracies[model], MARKERS[models.kinds[model]], **filled)
        points.append(axes.transLimits.transform(axes.transScale.transform((prices[model], accuracies[model]))))
    labels = [shortened(models.label(model), 24) for model in prices]
    places = place_labels([(x * size.width, y * size.height) for x, y in points], labels, size)
    for model, label, (x, y) in zip(prices, labels, places, strict=True):
        axes.annotate(
            label,
            (prices[model], accuracies[model]),
            (x / size.width, y / size.height),
            textcoords="axes fraction",
            ha="center",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": models.styles[model].color, "linewidth": 0.7, "shrinkB": 3},
        )


def price_axis(axes: Axes, prices: list[float]) -> None:
    """A log scale with plain numbers and more than two ticks."""
    middle, half = math.sqrt(min(prices) * max(prices)), max(1.5 * math.sqrt(max(prices) / min(prices)), 2.3)
    low, high = middle / half, middle * half
    every = 1 + math.floor(math.log10(high / low) / 8)  # at most about eight ticks
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1, every)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        if sum(low <= tick <= high for tick in ticks) > 3:
            break
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
