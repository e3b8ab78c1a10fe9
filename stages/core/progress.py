"""The progress of long work: a bar in a terminal; elsewhere, as in a log file, a line every 30 seconds."""

import sys
import threading
import time
from types import TracebackType

from tqdm import tqdm

from stages.core.wording import counted

SECONDS_PER_LINE = 30


class Progress:
    """Counts what is done, on standard error; a context manager. Work that ends before the first line prints none.

    A thread prints the lines, so that an epoch that takes an hour is not an hour of silence.
    """

    def __init__(self, description: str, unit: str, total: int | None = None, initial: int = 0):
        """unit: a noun, or `B` for bytes. total: None if it is not known. initial: done before, not timed."""
        self.description, self.unit, self.total, self.initial = description, unit, total, initial
        self.done, self.figures, self.start = initial, {}, time.monotonic()
        self._bar = self._thread = None
        self._ended = threading.Event()

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            is_bytes = self.unit == "B"
            unit = self.unit if is_bytes else f" {self.unit}s"
            self._bar = tqdm(
                desc=self.description, total=self.total, initial=self.initial, unit=unit, unit_scale=is_bytes
            )
        else:
            self._thread = threading.Thread(target=self._print_lines, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._bar:
            self._bar.close()

    def resume(self, number: int) -> None:
        """Count what an earlier run has done, which is not timed."""
        self.initial += number
        self.update(number)

    def update(self, number: int, **figures: float) -> None:
        """Count more that is done. figures: of the last of them, to be printed."""
        self.done += number
        self.figures = figures or self.figures
        if self._bar:
            self._bar.set_postfix({name: f"{value:.3f}" for name, value in self.figures.items()}, refresh=False)
            self._bar.update(number)

    def line(self) -> str:
        """What is done now: `b-scratch 1/3: 12 of 60 epochs, train_loss 0.123, about 01:20 left`."""
        whole = self.total or self.done
        if self.unit == "B":
            done, amount = tqdm.format_sizeof(self.done, "B"), tqdm.format_sizeof(whole, "B")
        else:
            done, amount = f"{self.done:,}", counted(whole, self.unit)
        parts = [f"{done} of {amount}" if self.total else amount]
        parts += [f"{name} {value:.3f}" for name, value in self.figures.items()]
        seconds, timed = time.monotonic() - self.start, self.done - self.initial
        if self.total and timed:
            parts.append(f"about {tqdm.format_interval((self.total - self.done) * seconds / timed)} left")
        else:
            parts.append(f"{tqdm.format_interval(seconds)} so far")
        return f"{self.description}: {', '.join(parts)}"

    def _print_lines(self) -> None:
        while not self._ended.wait(SECONDS_PER_LINE):
            print(self.line(), file=sys.stderr, flush=True)
