"""A function in a child process: its crashes are errors, and nobody gets the answer of another."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import pytest

from crowdcount.data.sources.isolated import IsolatedFunction

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits memory, and has /proc")


def test_one_child_answers_all_calls():
    child = IsolatedFunction("os", "getpid")
    pid = child()
    assert pid != os.getpid()
    assert child() == pid


def test_errors_of_the_function_are_raised_and_the_child_goes_on():
    pid, divide = IsolatedFunction("os", "getpid"), IsolatedFunction("operator", "truediv")
    with pytest.raises(ZeroDivisionError):
        divide(1, 0)
    assert divide(1, 2) == 0.5
    assert pid() == pid()


def test_a_crash_is_an_error_of_that_call_alone():
    kill = IsolatedFunction("signal", "raise_signal")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"crashes \(SIGSEGV\)"):
            kill(signal.SIGSEGV)
        assert kill(0) is None


def test_a_child_that_died_between_two_calls_is_replaced():
    child = IsolatedFunction("os", "getpid")
    pid = child()
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    assert child() != pid


def test_a_call_that_takes_too_long_is_an_error():
    sleep = IsolatedFunction("time", "sleep", seconds=0.3)
    with pytest.raises(ValueError, match=r"more than 0\.3 seconds"):
        sleep(30)
    assert sleep(0) is None


@LINUX
def test_a_call_that_takes_too_much_memory_is_an_error():
    with pytest.raises(ValueError, match="too much memory"):
        IsolatedFunction("builtins", "bytearray")(8 * 1024**3)


def test_after_an_interrupt_nobody_gets_the_answer_of_the_call_before():
    pause = IsolatedFunction("time", "sleep")
    pause(0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            pause(30)
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(TypeError):
        pause("not a number")


def test_threads_get_their_own_answers():
    negate = IsolatedFunction("operator", "neg")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(negate, range(200))) == [-number for number in range(200)]


def gone(pid):
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


@LINUX
def test_a_fork_has_a_child_of_its_own_and_a_killed_parent_leaves_none():
    program = """
        import os, sys, time
        from crowdcount.data.sources.isolated import IsolatedFunction
        child = IsolatedFunction("os", "getpid")
        print(child(), flush=True)
        if os.fork() == 0:
            print(child(), flush=True)
            time.sleep(60)
        os.wait()
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with parent:
        first, second = (int(parent.stdout.readline()) for _ in range(2))
        assert first != second
        parent.kill()
        assert gone(first), "the fork keeps the child of its killed parent alive"
        os.killpg(parent.pid, signal.SIGKILL)
        assert gone(second)
