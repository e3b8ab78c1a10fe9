"""Runs stages in processes that start at once: a server imports their modules and forks itself for each run.

Importing TensorFlow takes longer than a tiny training. A process may be forked until TensorFlow first computes.
"""

import importlib
import json
import os
import resource
import runpy
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stages.core import measurement

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ended:
    """How a stage ended: exit code (negative: the signal that killed it), its standard error, and seconds."""

    code: int
    said: str
    seconds: float


class Server:
    """Runs one stage at a time in a folder, as `python -m stages.<stage> [entry]` does."""

    def __init__(self, stages: set[str]):
        command = [sys.executable, "-m", "tests.forks", *sorted(stages)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self.process.stdout.readline() == "ready\n"

    def run(
        self, folder: Path, stage: str, *entry: str, kill_after: float | None = None, room: int | None = None
    ) -> Ended:
        """Run a stage. kill_after: seconds; room: size in bytes of the largest file that it may write."""
        self.process.stdin.write(json.dumps([str(folder), stage, entry, kill_after, room]) + "\n")
        return Ended(*json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        self.process.stdin.close()
        assert self.process.wait() == 0


def work(folder: str, stage: str, entry: list[str], room: int | None) -> int:
    """Run a stage in a forked process; returns its exit code."""
    os.chdir(folder)
    if room is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    sys.argv = [f"stages/{stage}.py", *entry]
    try:
        runpy.run_path(str(ROOT / f"stages/{stage}.py"), run_name="__main__")
        return 0
    except SystemExit as ended:
        return ended.code
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def serve() -> None:
    for line in sys.stdin:
        folder, stage, entry, kill_after, room = json.loads(line)
        reader, writer = os.pipe()
        start = time.monotonic()
        if not (pid := os.fork()):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(writer, 2)
            os._exit(work(folder, stage, entry, room))
        os.close(writer)
        said = read_until_end(reader, lambda pid=pid: os.kill(pid, signal.SIGKILL), kill_after)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps([code, said, time.monotonic() - start]), flush=True)


def read_until_end(reader: int, kill: Callable[[], None], kill_after: float | None) -> str:
    """Read a pipe until its writer ends, by itself or by `kill`, which is called after `kill_after` seconds."""
    said, end = b"", None if kill_after is None else time.monotonic() + kill_after
    while True:
        readable, _, _ = select.select([reader], [], [], None if end is None else max(0, end - time.monotonic()))
        if not readable:
            kill()
            end = None
        elif part := os.read(reader, 2**16):
            said += part
        else:
            os.close(reader)
            return said.decode()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        importlib.import_module(f"stages.{name}")
    measurement.SHORTEST = measurement.LONGEST = 0  # the fewest runs are enough
    print("ready", flush=True)
    serve()
