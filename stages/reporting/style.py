"""The one style of the report's pictures. Small, so that they can be read on a telephone as they are."""

import io
import textwrap
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from PIL import Image

WIDTH = 4.6  # inches; 9 points are then about 10 pixels on a page 390 pixels wide
# Okabe & Ito (2008), Color Universal Design; without yellow, which is faint on white.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = {"network": "o", "head": "s", "fine-tune": "D"}
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
    """A figure with its file name, and in words what it shows, for those who cannot see it."""

    name: str
    figure: Figure
    caption: str
    alt: str

    def png(self) -> bytes:
        """The figure as a PNG file of 256 colors, a third as large as one of all: reports are in git."""
        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()  # once, where savefig draws twice
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
        file = io.BytesIO()
        image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(file, "PNG")
        return file.getvalue()


@dataclass(frozen=True)
class LineStyle:
    """How a model, or a series of models, is drawn; line and edge tell up to 35 apart, where colors are used up."""

    color: str
    line: str | tuple
    edge: str


def line_style(place: int) -> LineStyle:
    """The look of the model at this place of its task, from 0."""
    rounds, color = divmod(place, len(PALETTE))
    edges = [("-", PALETTE[color]), ("--", "#000000"), (":", "#888888"), ("-.", "#ffffff"), ((0, (8, 2)), "#D55E00")]
    return LineStyle(PALETTE[color], *edges[rounds % len(edges)])


def line_styles(models: list[str]) -> dict[str, LineStyle]:
    """The looks of the models of a task."""
    return {model: line_style(place) for place, model in enumerate(models)}


@dataclass(frozen=True)
class Legend:
    """columns: of a legend. height: inches that its lines take beyond the first."""

    columns: int
    height: float


def legend_of(names: list[str]) -> Legend:
    """A legend of two columns, or of one where a name is too long for half of the width."""
    columns = 2 if max(map(len, names)) <= 25 else 1
    return Legend(columns, 0.2 * (len(names) // columns))


def headline(figure: Figure, text: str) -> None:
    """A title over the whole width, in two lines where one is too short."""
    figure.suptitle("\n".join(textwrap.wrap(text, 54)), x=0.01, ha="left")


def panel_title(axes: Axes, text: str) -> None:
    """The title of one panel of two side by side; smaller where it would not fit."""
    axes.set_title(text, fontsize=STYLE["axes.titlesize"] * min(1, 20 / len(text)))


def shortened(name: str) -> str:
    """A class name of at most 13 characters on one line; what is left out is in the middle, as ends often differ."""
    name = " ".join(name.split())
    return name if len(name) <= 13 else f"{name[:6]}…{name[-6:]}"


def percent_axis(axis: Axis) -> None:
    """Shares as per cents."""
    axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))


def log_axis(axis: Axis) -> None:
    """A log scale with numbers, from 0.0001 up without powers of ten; to be set when everything is drawn."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    subdivisions = (1.0, 2.0, 5.0) if high / low < 200 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subdivisions, numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
