"""Decoding many images on all processor cores, in their order and with few of them in memory."""

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
from stages.sources.source_image import SourceImage

# Small datasets are done before other processes have even started.
SECONDS_ALONE = 2.0
MOST_PROCESSES = 16  # reading the files cannot feed many more
# One message to a process and back; and so many wait in memory for each process.
IMAGES_A_MESSAGE, BYTES_A_MESSAGE, MESSAGES_A_PROCESS = 64, 8 * 2**20, 2

Outcome = tuple[SourceImage, Decoded | str]


def decode_all(source: Iterable[SourceImage], image_size: int, resize: str) -> Iterator[Outcome]:
    """Each image of a source with what it decodes to, or with the reason why it cannot be, in the order of the source.

    Processes and not threads: small images spend their time in Python, where threads wait for each other.
    """
    images = iter(source)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(cores, MOST_PROCESSES)
    start = time.monotonic()
    for image in images:
        yield image, _try(_read(image), image_size, resize)
        if processes > 1 and time.monotonic() - start >= SECONDS_ALONE:
            yield from _in_processes(images, image_size, resize, processes)


def _in_processes(images: Iterator[SourceImage], image_size: int, resize: str, processes: int) -> Iterator[Outcome]:
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    waiting = deque()
    try:
        for message in _messages(images, image_size):
            contents = [content for _, content in message]
            waiting.append(([image for image, _ in message], pool.submit(_try_all, contents, image_size, resize)))
            if len(waiting) >= processes * MESSAGES_A_PROCESS:
                yield from _outcomes(*waiting.popleft())
        while waiting:
            yield from _outcomes(*waiting.popleft())
    except BrokenProcessPool:
        raise UserError(
            "a process that decodes images was ended from outside, mostly for want of memory; free some, or make the "
            "largest images smaller."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _outcomes(images: list[SourceImage], future: Future) -> Iterator[Outcome]:
    yield from zip(images, future.result(), strict=True)


def _messages(
    images: Iterator[SourceImage], image_size: int
) -> Iterator[list[tuple[SourceImage, bytes | np.ndarray | str]]]:
    """Images with their contents, as many together as make a message of reasonable size there and back."""
    most = max(1, min(IMAGES_A_MESSAGE, BYTES_A_MESSAGE // (image_size**2 * 3)))
    message, size = [], 0
    for image in images:
        content = _read(image)
        message.append((image, content))
        size += content.nbytes if isinstance(content, np.ndarray) else len(content)
        if len(message) >= most or size >= BYTES_A_MESSAGE:
            yield message
            message, size = [], 0
    if message:
        yield message


def _read(image: SourceImage) -> bytes | np.ndarray | str:
    """The content of an image, or the reason why there is none."""
    try:
        return image.content()
    except MemoryError:
        raise
    except Exception as error:  # on broken files zipfile and others raise nearly anything
        return _reason(error)


def _try(content: bytes | np.ndarray | str, image_size: int, resize: str) -> Decoded | str:
    if isinstance(content, str):
        return content
    try:
        return decode(content, image_size, resize)
    except MemoryError:
        raise
    except Exception as error:  # and Pillow too
        return _reason(error)


def _try_all(contents: list[bytes | np.ndarray | str], image_size: int, resize: str) -> list[Decoded | str]:
    return [_try(content, image_size, resize) for content in contents]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _end_with_parent() -> None:
    """End this process when the one that started it is killed, which could not tell it to."""

    def wait() -> None:
        multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
