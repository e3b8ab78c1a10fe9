"""The style of all figures. They are small, so that they are readable on a telephone without zooming."""

import io
import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from PIL import Image

WIDTH = 4.6  # inches; 9 points become about 10 pixels on a page 390 pixels wide
# Okabe & Ito (2008), Color Universal Design; without yellow, which is faint on white.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = {"network": "o", "head": "s", "probe": "^", "fine-tune": "D"}
STYLE = {
    "figure.dpi": 140,
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
NAMES_UP_TO = 20  # classes


@dataclass(frozen=True)
class Picture:
    """A figure with its file name, its caption, and a text alternative for readers who cannot see it."""

    name: str
    figure: Figure
    caption: str
    alt: str

    def png(self) -> bytes:
        """The figure as a PNG file of 256 colors, a third of the size of a full-color one: reports are in git."""
        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()  # savefig would draw twice
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
        file = io.BytesIO()
        image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(file, "PNG")
        return file.getvalue()


@dataclass(frozen=True)
class LineStyle:
    """How a model, or a curve of models, is drawn. Once the colors are used up, line and edge distinguish up to 35."""

    color: str
    line: str | tuple
    edge: str


def line_style(number: int) -> LineStyle:
    """The style of a model by its number in the task, from 0."""
    rounds, color = divmod(number, len(PALETTE))
    edges = [("-", PALETTE[color]), ("--", "#000000"), (":", "#888888"), ("-.", "#ffffff"), ((0, (8, 2)), "#D55E00")]
    return LineStyle(PALETTE[color], *edges[rounds % len(edges)])


def line_styles(models: list[str]) -> dict[str, LineStyle]:
    """The styles of the models of a task."""
    return {model: line_style(number) for number, model in enumerate(models)}


def ranked(metrics: dict[str, Any], recommended: str) -> list[str]:
    """The models of a task in the order of tables and figures: the recommended one, then by validation accuracy.

    metrics: of each model of the task, its part of metrics.json.
    """
    return sorted(metrics, key=lambda model: (model != recommended, -metrics[model]["validation"]["accuracy"]))


@dataclass(frozen=True)
class TaskModels:
    """The models of a task: their lines, kinds and metrics, and which one is recommended."""

    task: str
    styles: dict[str, LineStyle]
    kinds: dict[str, str]
    metrics: dict[str, Any]
    recommended: str

    @property
    def ranked(self) -> list[str]:
        """The models in the order of the tables."""
        return ranked({model: self.metrics[model] for model in self.styles}, self.recommended)

    def accuracy(self, model: str) -> float:
        """The test accuracy of a model."""
        return self.metrics[model]["test"]["accuracy"]

    def label(self, model: str) -> str:
        """The name of a model, marked if it is recommended."""
        return f"{model} ✓" if model == self.recommended else model


@dataclass(frozen=True)
class Legend:
    """columns: of a legend. height: inches of its lines after the first."""

    columns: int
    height: float


def layout_legend(names: list[str]) -> Legend:
    """A legend with two columns, or with one if a name is too long for half of the width."""
    columns = 2 if max(map(len, names)) <= 25 else 1
    return Legend(columns, 0.2 * (len(names) // columns))


def headline(figure: Figure, text: str) -> None:
    """A title over the whole width, on two lines if one is too short."""
    figure.suptitle("\n".join(textwrap.wrap(text, 54)), x=0.01, ha="left")


def panel_title(axes: Axes, text: str) -> None:
    """The title of one of two panels side by side; smaller if it would not fit."""
    axes.set_title(text, fontsize=STYLE["axes.titlesize"] * min(1, 20 / len(text)))


def shortened(name: str, most: int = 13) -> str:
    """A name of at most so many characters on one line; shortened in the middle, because ends often differ."""
    name, half = " ".join(name.split()), most // 2
    return name if len(name) <= most else f"{name[:half]}…{name[-half:]}"


def percent_axis(axis: Axis) -> None:
    """Shares as percentages."""
    axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))


def log_axis(axis: Axis) -> None:
    """A log scale with plain numbers, from 0.0001 up without powers of ten; call it after drawing."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    subdivisions = (1.0, 2.0, 5.0) if high / low < 200 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subdivisions, numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
