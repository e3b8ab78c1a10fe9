"""Decodes images on all processor cores, in their order and in bounded memory."""

import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from stages.core.errors import UserError
from stages.sources.decoding import Decoded, decode
from stages.sources.source_image import NotAnImage, SourceImage

# Small datasets are decoded before other processes would have started.
SECONDS_IN_PROCESS = 2.0
MOST_PROCESSES = 16  # reading the files is the bottleneck beyond
# The size of a message to a process, and the number of messages in memory per process.
IMAGES_PER_MESSAGE, BYTES_PER_MESSAGE, MESSAGES_PER_PROCESS = 64, 8 * 2**20, 2


class NoImage(str):
    """A reason why a file is not an image at all; other reasons are of damaged images."""


Outcome = tuple[SourceImage, Decoded | str]


def decode_all(source: Iterable[SourceImage], image_size: int, resize: str) -> Iterator[Outcome]:
    """Each image of a source, in order, with its decoded image or the reason why it cannot be decoded.

    Processes, not threads: decoding small images is limited by Python's global interpreter lock.
    """
    images = iter(source)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(cores, MOST_PROCESSES)
    start = time.monotonic()
    for image in images:
        yield image, _try(_read(image), image_size, resize, image.bits)
        if processes > 1 and time.monotonic() - start >= SECONDS_IN_PROCESS:
            yield from _in_processes(images, image_size, resize, processes)


def _in_processes(images: Iterator[SourceImage], image_size: int, resize: str, processes: int) -> Iterator[Outcome]:
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_exit_with_parent)
    pending = deque()
    try:
        for message in _messages(images, image_size):
            images_of_message, contents = zip(*message, strict=True)
            bits = [image.bits for image in images_of_message]
            pending.append((images_of_message, pool.submit(_try_all, contents, image_size, resize, bits)))
            if len(pending) >= processes * MESSAGES_PER_PROCESS:
                yield from _outcomes(*pending.popleft())
        while pending:
            yield from _outcomes(*pending.popleft())
    except BrokenProcessPool:
        raise UserError(
            "a process that decodes images was killed, probably for lack of memory. Free some memory, or reduce "
            "the largest images."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _outcomes(images: Iterable[SourceImage], future: Future) -> Iterator[Outcome]:
    yield from zip(images, future.result(), strict=True)


def _messages(
    images: Iterator[SourceImage], image_size: int
) -> Iterator[list[tuple[SourceImage, bytes | np.ndarray | str]]]:
    """Images with their contents, in batches that make messages of reasonable size in both directions."""
    limit = max(1, min(IMAGES_PER_MESSAGE, BYTES_PER_MESSAGE // (image_size**2 * 3)))
    message, size = [], 0
    for image in images:
        content = _read(image)
        message.append((image, content))
        size += content.nbytes if isinstance(content, np.ndarray) else len(content)
        if len(message) >= limit or size >= BYTES_PER_MESSAGE:
            yield message
            message, size = [], 0
    if message:
        yield message


def _read(image: SourceImage) -> bytes | np.ndarray | str:
    """The content of an image, or the reason why it is unreadable."""
    try:
        return image.content()
    except MemoryError:
        raise
    except Exception as error:  # zipfile and others raise nearly any exception on broken files
        return _reason(error)


def _try(content: bytes | np.ndarray | str, image_size: int, resize: str, bits: int | None) -> Decoded | str:
    if isinstance(content, str):
        return content
    try:
        return decode(content, image_size, resize, bits)
    except MemoryError:
        raise
    except Exception as error:  # so does Pillow
        return _reason(error)


def _try_all(
    contents: Iterable[bytes | np.ndarray | str], image_size: int, resize: str, bits: list[int | None]
) -> list[Decoded | str]:
    return [_try(content, image_size, resize, depth) for content, depth in zip(contents, bits, strict=True)]


def _reason(error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return NoImage(reason) if isinstance(error, NotAnImage) else reason


def _exit_with_parent() -> None:
    """Exit when the parent process is killed, because it cannot shut down its pool then."""

    def wait() -> None:
        multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
