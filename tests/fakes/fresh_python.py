"""Fresh Python processes in a fraction of a second: forked from one that has loaded torch and nothing of the Hub.

    done = run_fresh(["-c", "print(1)"], environment=os.environ, folder=tmp_path)

A process that is started anew loads torch, datasets and transformers, which takes 5 seconds, before it does anything.
The Hub's libraries read the environment when they are loaded. So there is one process of the first kind, which knows
torch only; from it one is forked for each environment, which then loads the Hub's libraries; and from that one a
process for each command, which has loaded nothing of the project, no model and no file of the Hub before.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

LIBRARIES = (  # that read nothing of the Hub's environment; those that are missing here are left out
    *("torch", "torchvision", "torch._dynamo", "torch.distributed.tensor", "scipy.stats", "scipy.optimize", "pandas"),
    *("pyarrow.parquet", "sklearn.metrics", "PIL.Image", "safetensors.torch", "tokenizers", "requests", "httpx"),
    *("fsspec", "aiohttp", "yaml", "regex", "tqdm.auto", "xxhash", "dill", "multiprocess", "psutil", "jinja2"),
)
HUB_LIBRARIES = ("huggingface_hub", "datasets", "accelerate", "transformers", "evaluate")
NAMES_OF_TRANSFORMERS = ("AutoBackbone", "AutoModel", "AutoImageProcessor", "PreTrainedModel", "Trainer", "pipeline")
MAX_ENVIRONMENTS = 2  # whose processes wait for further commands
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "0",
}

_lock = threading.Lock()
_server: subprocess.Popen | None = None


def run_fresh(
    command: Sequence[object], environment: Mapping[str, str], folder: str | Path | None = None
) -> subprocess.CompletedProcess:
    """Run Python with these arguments, `-c CODE ...` or `SCRIPT ...`, to its end, in a process of its own.

    Args:
        environment: all its variables; `OMP_NUM_THREADS` sets its threads.
        folder: that it works in.
    """
    arguments = [str(part) for part in command]
    with tempfile.TemporaryDirectory() as output, _lock:
        request = {"command": arguments, "environment": dict(environment), "folder": str(folder or os.getcwd())}
        status = _ask(request | {"output": output})
        # Universal newlines, as subprocess reads text.
        stdout, stderr = (Path(output, name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess([sys.executable, *arguments], status, stdout, stderr)


def _ask(request: dict) -> int:
    global _server
    if _server is None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        _server = subprocess.Popen([sys.executable, "-P", __file__], env=os.environ | ONE_THREAD, cwd="/", **pipes)
        atexit.register(_server.stdin.close)  # at which it ends
    print(json.dumps(request), file=_server.stdin, flush=True)
    answer = _server.stdout.readline()
    if not answer:
        raise RuntimeError("the process that fresh ones are forked from has ended")
    return json.loads(answer)


def _import(names: Sequence[str]) -> None:
    for name in names:
        with contextlib.suppress(ImportError):
            import_module(name)


def _serve(requests: int, answers: int, handle: Callable[[dict], int]) -> None:
    """Answer requests, a line each, until there are no more."""
    with open(requests) as lines, open(answers, "w") as sink:
        for line in lines:
            print(json.dumps(handle(json.loads(line))), file=sink, flush=True)


def _fork(act: Callable[[], object]) -> int:
    """Do something in a forked process, which ends with it; the process's number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        act()
        status = 0
    finally:
        os._exit(status)


class Environments:
    """Processes that have loaded the Hub's libraries, each in an environment of its own."""

    def __init__(self) -> None:
        self.pipes: dict[str, tuple[int, int, int]] = {}  # (process, requests, answers), the one used last at the end

    def handle(self, request: dict) -> int:
        """Hand a request to the process of its environment; return what that answers."""
        key = json.dumps(request["environment"], sort_keys=True)
        self.pipes[key] = self.pipes.pop(key, None) or self._start(request["environment"])
        while len(self.pipes) > MAX_ENVIRONMENTS:
            self._stop(next(iter(self.pipes)))
        _, requests, answers = self.pipes[key]
        os.write(requests, json.dumps(request).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            answer += os.read(answers, 100) or b"-1\n"
        return json.loads(answer)

    def _start(self, environment: dict[str, str]) -> tuple[int, int, int]:
        requests, answers = os.pipe(), os.pipe()

        def serve() -> None:
            for descriptor in [requests[1], answers[0], *(each for _, *pipes in self.pipes.values() for each in pipes)]:
                os.close(descriptor)
            os.environ.clear()
            os.environ.update(environment)
            _import(HUB_LIBRARIES)
            transformers = import_module("transformers")
            for name in NAMES_OF_TRANSFORMERS:
                getattr(transformers, name)
            _serve(requests[0], answers[1], _run)

        process = _fork(serve)
        os.close(requests[0])
        os.close(answers[1])
        return process, requests[1], answers[0]

    def _stop(self, key: str) -> None:
        process, requests, answers = self.pipes.pop(key)
        os.close(requests)
        os.close(answers)
        os.waitpid(process, 0)


def _run(request: dict) -> int:
    """Run a command in a process of its own; return its exit status, or less than 0 for a signal."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            status = _be(request)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _be(request: dict) -> int:
    """Become the Python that a request asks for; return its exit status."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(Path(request["output"], name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["folder"])
    import_module("torch").set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    status = _find_status(lambda: _execute(request["command"]))
    for last in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):
        _find_status(last)  # which changes nothing, as when Python ends
    return status


def _find_status(act: Callable[[], object]) -> int:
    """Do something as Python does a program; return the exit status."""
    try:
        act()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _execute(command: list[str]) -> None:
    """Run a script, or code behind `-c`, as the program `__main__`."""
    first, *arguments = command
    if first == "-c":
        code, *arguments = arguments
        sys.argv = ["-c", *arguments]
        sys.path.insert(0, "")
        module = sys.modules["__main__"] = type(sys)("__main__")
        module.__dict__["__builtins__"] = __builtins__
        exec(compile(code, "<string>", "exec"), module.__dict__)
        return
    sys.argv = [first, *arguments]
    script = os.path.abspath(first)  # which processes that it starts look for from another folder
    sys.path.insert(0, os.path.dirname(script))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    _import(LIBRARIES)
    _serve(sys.stdin.fileno(), os.dup(sys.stdout.fileno()), Environments().handle)
