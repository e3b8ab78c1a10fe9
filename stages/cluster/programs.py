"""Runs DVC and git as programs that end with the process that started them, whatever ends it.

Ray sends the functions of this package to its nodes, which may have no copy of the project: they import only the
standard library.
"""

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import IO

# Its standard input ends when the process that started it does, even if that was killed. It then interrupts the program
# and everything that the program has started, as Ctrl-C does.
LEASH = """
import os, signal, subprocess, sys, threading, time

def interrupt():
    os.read(0, 1)
    os.killpg(0, signal.SIGINT)
    time.sleep(5)
    os.killpg(0, signal.SIGKILL)

if inner := os.fork():  # Ray kills the children of a worker that ends, but not their children
    os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) % 256)
os.setsid()
signal.signal(signal.SIGINT, lambda *_: None)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # processes of Ray block it
program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
threading.Thread(target=interrupt, daemon=True).start()
os._exit(program.wait() % 256)
"""
LAST_LINES = 30
POLLING_SECONDS = 0.05


def dvc(*arguments: str) -> list[str]:
    """The command line of DVC on this machine. Without the option, DVC gives up on its lock after three seconds."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]


def ask(*command: str) -> subprocess.CompletedProcess:
    """Run a short command; its errors go to standard error, unless it is git, whose errors are part of the result."""
    errors = subprocess.PIPE if command[0] == "git" else None
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, check=False)


def run(
    command: list[str],
    folder: Path = Path(),
    settings: dict[str, str] | None = None,
    lock: IO | None = None,
    captured: bool = False,
) -> tuple[int, str]:
    """Run a program in a folder; return its exit code and, if captured, its last lines, which are printed too.

    settings: environment variables.
    lock: an open file that stays open, and locked, until the program has ended, even if this process is killed.
    """
    # The `python` of the stages is the one that runs this.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [sys.executable, "-IS", "-c", LEASH, *command],
        cwd=folder,
        env={**os.environ, "PATH": path, **(settings or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if captured else None,
        stderr=subprocess.STDOUT if captured else None,
        start_new_session=True,  # Ctrl-C reaches this process only
        pass_fds=[lock.fileno()] if lock else [],
    )
    lines = deque(maxlen=LAST_LINES)
    reader = threading.Thread(target=_copy, args=(process.stdout or [], lines), daemon=True)
    reader.start()
    try:
        while process.poll() is None:
            time.sleep(POLLING_SECONDS)  # Ray can interrupt this, but not a process that waits for input
        reader.join()
        return process.returncode, "".join(lines)
    finally:
        process.stdin.close()
        process.wait()


def _copy(output: Iterable[bytes], lines: deque[str]) -> None:
    """Print lines, and keep them."""
    for line in output:
        lines.append(line.decode(errors="replace"))
        print(lines[-1], end="", flush=True)
