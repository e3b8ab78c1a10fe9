"""Pictures of models that differ in one thing only: accuracy against the number of images, and against depth."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from stages.reporting.style import WIDTH, LineStyle, Picture, headline, legend_of, line_style, percent_axis

OFFSET = 0.06  # between the lines of several series at one depth, where intervals would hide each other
FACTOR = 1.03  # the same for numbers of images, on a log scale


def draw_learning(task: str, curves: list[dict], crossings: list[dict], metrics: dict) -> Picture:
    """Test accuracy against training images of each class, one line a series; where lines cross for good, a mark.

    curves, crossings: as in study.json and comparisons.json.
    """
    legend = legend_of([series["name"] for series in curves])
    figure = Figure(figsize=(WIDTH, 3.0 + legend.height))
    axes = figure.subplots()
    for number, series in enumerate(curves):
        shift = FACTOR ** (number - (len(curves) - 1) / 2)
        draw_series(axes, [place * shift for place in series["models"].values()], series, metrics, line_style(number))
    places = sorted({round(place) for series in curves for place in series["models"].values()})
    clear = [crossing for crossing in crossings if crossing["beyond_chance"]]
    for crossing in clear:
        axes.axvline(crossing["at"], color="#555555", linewidth=1, linestyle="--")
    for at in spread(sorted(crossing["at"] for crossing in clear), places):
        axes.text(at, 0.02, f" {at:.0f}", transform=axes.get_xaxis_transform(), color="#555555", fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(spread(places, places)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    percent_axis(axes.yaxis)
    axes.set_xlabel("training images of each class (log scale)")
    axes.set_ylabel("test accuracy")
    title = "what more training images bring"
    if len(clear) == 1:
        title = f"{clear[0]['after']} overtakes {clear[0]['before']} at about {clear[0]['at']:.0f} images of each class"
    headline(figure, f"{task}: {title}")
    figure.legend(loc="outside lower center", ncols=legend.columns)
    listed = "; ".join(
        f"{series['name']}: "
        + ", ".join(
            f"{metrics[model]['test']['accuracy']:.1%} with {place:.0f}" for model, place in series["models"].items()
        )
        for series in curves
    )
    return Picture(
        f"learning-{task}.png",
        figure,
        " ".join(
            [
                "Models that differ in nothing but the number of training images, with 95 % intervals; a line is named "
                "after its model with the most images.",
                *map(crossing_sentence, crossings),
            ]
        ),
        f"Test accuracy against training images of each class. {listed}.",
    )


def crossing_sentence(crossing: dict) -> str:
    """What can be said of a point where two learning curves cross."""
    at = f"{crossing['after']} overtakes {crossing['before']} at about {crossing['at']:.0f} images of each class"
    if crossing["beyond_chance"]:
        return f"{at}: below and above, models with equally many images are distinguishable."
    return f"{at}, which may be chance: not on both sides are models with equally many images distinguishable."


def spread(places: list[float], axis: list[float]) -> list[float]:
    """Of ascending places those whose labels have room on a log scale from the first to the last of `axis`."""
    found = places[:1]
    for place in places[1:]:
        if place > found[-1] * (axis[-1] / axis[0]) ** (1 / 11):
            found.append(place)
    return found


def draw_depths(task: str, depths: dict[str, dict], metrics: dict, test: list[dict]) -> Picture:
    """Test accuracy against the highest frozen layer, one panel an architecture, one line a series.

    depths: as in study.json. test: all pairs of models, compared on the test images.
    """
    legend = legend_of([series["name"] for found in depths.values() for series in found["series"]])
    figure = Figure(figsize=(WIDTH, 0.8 + 2.6 * len(depths) + legend.height))
    panels = figure.subplots(len(depths), 1, squeeze=False)[:, 0]
    listed = []
    for axes, (architecture, of_architecture) in zip(panels, depths.items(), strict=True):
        series = of_architecture["series"]
        depth = sorted({place for each in series for place in each["models"].values()})
        names = ["none", *of_architecture["layers"]]
        for number, each in enumerate(series):
            shift = OFFSET * (number - (len(series) - 1) / 2)
            draw_series(
                axes,
                [depth.index(place) + shift for place in each["models"].values()],
                each,
                metrics,
                line_style(number),
            )
            listed += [
                f"{model} at {names[place]} {metrics[model]['test']['accuracy']:.1%}"
                for model, place in each["models"].items()
            ]
        # Long names of many layers stand aslant.
        aslant = {"rotation": 30, "ha": "right"} if len(depth) > 4 else {}
        axes.set_xticks(range(len(depth)), [f"{names[place]}\n({place})" for place in depth], fontsize=8, **aslant)
        axes.set_xlim(-0.4, len(depth) - 0.6)
        percent_axis(axes.yaxis)
        axes.set_title(architecture)
        axes.set_ylabel("test accuracy")
    panels[-1].set_xlabel("highest frozen layer (number of frozen layers)")
    headline(figure, f"{task}: {depth_title(depths, metrics, test)}")
    figure.legend(loc="outside lower center", ncols=legend.columns)
    return Picture(
        f"depth-{task}.png",
        figure,
        "Models that differ in nothing but the layer up to which the backbone is kept as it is, with 95 % intervals; a "
        "line is named after its model with the most frozen layers. A head replaces the layers above, unless it starts "
        "from them.",
        f"Test accuracy against depth: {'; '.join(listed)}.",
    )


def depth_title(depths: dict[str, dict], metrics: dict, test: list[dict]) -> str:
    """Of a single series the layer of which accuracy is highest, if it is distinguishably so; else what is shown."""
    of_all = [(each, found["layers"]) for found in depths.values() for each in found["series"]]
    series, layers = of_all[0]
    best = max(series["models"], key=lambda model: metrics[model]["test"]["accuracy"])
    of_series = [pair for pair in test if {pair["a"], pair["b"]} <= series["models"].keys()]
    if len(of_all) > 1 or not all(pair["distinguishable"] for pair in of_series if best in (pair["a"], pair["b"])):
        return "accuracy by the depth that is frozen"
    highest = ["none", *layers][series["models"][best]]
    return f"accuracy is highest with {highest} as the highest frozen layer"


def draw_series(axes: Axes, places: list[float], series: dict, metrics: dict, look: LineStyle) -> None:
    """Test accuracies with their intervals, joined by a line."""
    test = [metrics[model]["test"] for model in series["models"]]
    accuracy = [each["accuracy"] for each in test]
    axes.plot(
        places,
        accuracy,
        look.line,
        color=look.color,
        marker="o",
        markersize=5,
        markeredgecolor=look.edge,
        label=series["name"],
    )
    axes.vlines(
        places, [each["accuracy_low"] for each in test], [each["accuracy_high"] for each in test], color=look.color
    )
