"""Stages in processes of their own that start at once: a server that has imported all they need forks them.

TensorFlow takes longer to import than a tiny training takes; and it may be forked as long as it has not computed.
"""

import contextlib
import importlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ended:
    """How a stage ended: exit code (negative: the signal that killed it), what it wrote to standard error, seconds."""

    code: int
    said: str
    seconds: float


class Server:
    """Runs stages one at a time, as `python -m stages.<stage> [entry]` does in a folder."""

    def __init__(self, stages: set[str]):
        command = [sys.executable, "-m", "tests.forks", *sorted(stages)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self.process.stdout.readline() == "ready\n"

    def run(
        self, folder: Path, stage: str, *entry: str, kill_after: float | None = None, room: int | None = None
    ) -> Ended:
        """Run a stage. kill_after: seconds; room: bytes of the largest file that it may write."""
        self.process.stdin.write(json.dumps([str(folder), stage, entry, room]) + "\n")
        pid = int(self.process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):  # it has come to its end
                os.kill(pid, signal.SIGKILL)
        return Ended(*json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        self.process.stdin.close()
        assert self.process.wait() == 0


def work(folder: str, stage: str, entry: list[str], room: int | None) -> int:
    """What a forked process does; returns its exit code."""
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
        reader, writer = os.pipe()
        begun = time.monotonic()
        if not (pid := os.fork()):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(writer, 2)
            os._exit(work(*json.loads(line)))
        print(pid, flush=True)
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as stderr:
            said = stderr.read()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps([code, said, time.monotonic() - begun]), flush=True)


if __name__ == "__main__":
    for each in sys.argv[1:]:
        importlib.import_module(f"stages.{each}")
    print("ready", flush=True)
    serve()
