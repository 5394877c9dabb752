"""Call a function in a child process, where a crash is an error and not the end of the program."""

import atexit
import faulthandler
import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Any, cast

_MEMORY = 4 * 1024**3  # bytes that a child may address; Linux alone keeps to it

_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[4:]; "
    f"from {__name__} import serve; serve(sys.argv[1], sys.argv[2], seconds=float(sys.argv[3]))"
)


class IsolatedFunction:
    """A function that runs in a child process, which is kept for further calls.

    A crash or an endless loop in C code ends the child alone; the next call starts another. Calls
    from several threads take turns. The child ends with its parent, however that ends.
    """

    def __init__(self, module: str, name: str, *, seconds: float = 60) -> None:
        """Name a function whose arguments and values can be pickled; nothing is started yet.

        Args:
            module: The module of the function, imported in the child alone.
            name: The function.
            seconds: Limit for one call.
        """
        self._command = [module, name, str(seconds)]
        self._seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        atexit.register(self._end)
        if hasattr(os, "register_at_fork"):  # Windows cannot fork
            os.register_at_fork(after_in_child=self._forget)

    def __call__(self, *arguments: Any) -> Any:
        """Call the function; errors that it raises are raised here.

        Raises:
            ValueError: If the call crashes, or takes too long or too much memory.
            RuntimeError: If the child cannot be started.
        """
        with self._lock:
            child = self._running_child()
            try:
                succeeded, answer = _exchange(child, arguments)
            except (EOFError, OSError, pickle.UnpicklingError) as error:
                raise ValueError(self._cause_of_death(child)) from error
            except BaseException:
                self._end()  # its answer would be taken for that to the next question
                raise
        if succeeded:
            return answer
        raise answer

    def _running_child(self) -> "subprocess.Popen[bytes]":
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._end()
        self._child = child = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *self._command, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # A request to stop reaches the whole group of the parent, which decides what it means.
            process_group=0,
            # Each thread that a library of linear algebra prepares takes memory.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        try:
            _receive(child)
        except EOFError as error:
            raise RuntimeError(f"{self._command[0]}: no process to run it in starts") from error
        except BaseException:
            self._end()
            raise
        return child

    def _cause_of_death(self, child: "subprocess.Popen[bytes]") -> str:
        code = child.wait()
        if code == 1:
            return f"reading it takes more than {self._seconds:g} seconds"
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"reading it crashes ({name})"

    def _end(self) -> None:
        """Kill the child, if there is one: it holds nothing that could be lost."""
        if self._child is not None:
            self._child.kill()
            with suppress(BrokenPipeError):  # a question that it never took
                self._child.communicate()
            self._child = None

    def _forget(self) -> None:
        """Begin without a child; a forked process must not use that of its parent."""
        self._inherited = self._child
        if self._inherited is not None:
            with open(os.devnull, "r+b") as nowhere:  # noqa: PTH123 - no path
                for stream in (self._inherited.stdin, self._inherited.stdout):
                    # Its end of the pipe must not keep the child alive. The stream keeps its
                    # number, which it closes one day.
                    number = cast(IO[bytes], stream).fileno()
                    os.dup2(nowhere.fileno(), number, inheritable=False)
        self._child = None
        self._lock = threading.Lock()


def _exchange(child: "subprocess.Popen[bytes]", arguments: Any) -> Any:
    """Send the arguments of a call, and return its outcome."""
    questions = cast(IO[bytes], child.stdin)
    pickle.dump(arguments, questions)
    questions.flush()
    return _receive(child)


def _receive(child: "subprocess.Popen[bytes]") -> Any:
    return pickle.load(cast(IO[bytes], child.stdout))


def serve(module: str, name: str, *, seconds: float) -> None:
    """Answer the calls that come on standard input, until it is closed: the work of a child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit_memory()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    function = getattr(importlib.import_module(module), name)
    answer = pickle.dumps("ready")
    with open(os.devnull, "wb") as nowhere, suppress(EOFError):  # noqa: PTH123 - no path
        while True:
            answers.write(answer)
            answers.flush()
            arguments = pickle.load(sys.stdin.buffer)
            # A thread without Python's lock, which ends the process in the midst of C code.
            faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
            try:
                answer = pickle.dumps((True, function(*arguments)))
            except MemoryError:
                answer = pickle.dumps((False, ValueError("reading it takes too much memory")))
            except Exception as error:  # noqa: BLE001 - the caller decides
                answer = pickle.dumps((False, error))
            faulthandler.cancel_dump_traceback_later()


def _limit_memory() -> None:
    """Let this process take no more memory than an annotation can need, and leave no core dump."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, limit in ((resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        with suppress(ValueError, OSError):  # macOS refuses some
            resource.setrlimit(kind, (limit, hard))
