"""Linux and macOS are supported. Windows, which lacks more, can at least import everything."""

import os
import subprocess
import sys
from pathlib import Path

from crowdcount.core.device import usable_cpus

# Other libraries are imported first: they mind themselves what a platform lacks.
PROGRAM = """
import os, pkgutil, sys
import huggingface_hub, matplotlib.figure, open_clip, psutil, timm, torch.utils.data

sys.modules |= dict.fromkeys(["fcntl", "resource"])
for name in ("sched_getaffinity", "setpgid", "mkfifo"):
    delattr(os, name)

import crowdcount
for module in pkgutil.walk_packages(crowdcount.__path__, "crowdcount."):
    if not module.name.endswith("__main__"):
        __import__(module.name)

from crowdcount.core.device import usable_cpus
from crowdcount.data.training.batches import _begin_worker
from crowdcount.training.memory import peak_memory
assert usable_cpus() >= 1
_begin_worker(0)
assert 2**20 < peak_memory(torch.device("cpu")) < 2**40
"""


def test_every_module_works_without_what_macos_or_windows_lack():
    path = {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | path)
    assert done.returncode == 0, done.stderr


def test_only_processors_that_may_be_used_are_counted():
    assert 1 <= usable_cpus() <= os.cpu_count()


def test_opencv_without_its_system_libraries_ends_a_command_in_one_error(tmp_path):
    Path(tmp_path / "cv2.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file')", encoding="utf-8"
    )
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[1]}"}
    command = [sys.executable, "-m", "crowdcount", "predict", "a.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | path)
    assert done.returncode == 1
    first, _, advice = done.stderr.splitlines()
    assert first == "error: OpenCV cannot be loaded: libGL.so.1: cannot open shared object file"
    assert "libgl1" in advice
    assert "opencv-python-headless" in advice
