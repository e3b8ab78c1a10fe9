"""Programs `python` and `dvc` that start at once: a server imports the libraries and forks itself for each run.

To import TensorFlow takes longer than a tiny training, to import DVC longer than most of its commands. A run imports
`stages` from its own working folder, unless the code there is the one that the server has imported.
"""

import atexit
import fcntl
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Runs `python -m <module>` and `python -c <code>` in a fork of the server, everything else in a new process.
PROGRAM = """#!{python} -IS
import json, os, socket, sys
arguments = {first} + sys.argv[1:]
if arguments[:1] not in (["-m"], ["-c"]) or "PYTHONPATH" in os.environ:
    os.execv({python!r}, [{python!r}, *arguments])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
message = json.dumps([os.getcwd(), dict(os.environ), arguments]).encode()
socket.send_fds(server, [len(message).to_bytes(8, "big")], [0, 1, 2])
server.sendall(message)
code = server.recv(1)
sys.exit(code[0] if code else 1)
"""


@functools.cache
def programs() -> Path:
    """A folder with the two programs, which use a server that ends with this process."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "server"))
    listener.listen()
    # The server ends when its standard input does. Programs may be started before it has imported the libraries.
    server = subprocess.Popen(
        [sys.executable, __file__, str(listener.fileno())], pass_fds=[listener.fileno()], stdin=subprocess.PIPE
    )
    atexit.register(server.communicate)  # closes it
    for name, first in (("python", []), ("dvc", ["-m", "dvc"])):
        text = PROGRAM.format(python=sys.executable, first=first, address=str(folder / "server"))
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def code_in(folder: Path) -> dict[Path, bytes]:
    """The files of `stages` in a folder."""
    files = [path for path in (folder / "stages").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def forget(module: str) -> None:
    """Let a package and its modules, or a module, be imported again."""
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        del sys.modules[name]


def import_libraries() -> dict[Path, bytes]:
    """Import what DVC and the stages import, and the stages; returns the code of the stages."""
    code = code_in(ROOT)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # as `stages` does
    importlib.import_module("dvc.cli.parser")
    importlib.import_module("dvc.repo")
    importlib.import_module("keras_hub")  # stages import it where they need it
    sys.path[0] = str(ROOT)
    for file in sorted((ROOT / "stages").glob("*.py")):
        importlib.import_module(f"stages.{file.stem}")
    gc.collect()
    gc.freeze()
    return code


def receive(connection: socket.socket) -> tuple[str, dict[str, str], list[str]]:
    """Take the standard files of a program; returns its working folder, environment and arguments."""
    size, files, *_ = socket.recv_fds(connection, 8, 3)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    return json.loads(connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))


def measure_briefly() -> None:
    """Let the stages of the working folder measure with the fewest runs, which saves a second or two for each model."""
    if Path("stages/core/measurement.py").exists():
        measurement = importlib.import_module("stages.core.measurement")
        measurement.SHORTEST = measurement.LONGEST = 0


def run(connection: socket.socket, code: dict[Path, bytes]) -> int:
    """Run in this process what a program was asked for; returns the exit code."""
    folder, environment, (kind, what, *arguments) = receive(connection)
    # If the program is killed, its end of the connection closes, which ends this process by a signal.
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    sys.argv = [kind, *arguments]
    try:
        if what != "dvc":
            forget(what if code_in(Path(folder)) == code else "stages")
            measure_briefly()
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, {"__name__": "__main__"})
        return 0
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def serve(listener: socket.socket, code: dict[Path, bytes]) -> None:
    """Fork a process for each connection until the standard input ends, then wait for these processes."""
    while select.select([listener, sys.stdin], [], [])[0] == [listener]:
        connection, _ = listener.accept()
        if not os.fork():
            status = run(connection, code)
            signal.signal(signal.SIGIO, signal.SIG_IGN)
            connection.sendall(bytes([status & 255]))
            os._exit(status)
        connection.close()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), import_libraries())
