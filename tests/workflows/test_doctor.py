"""What ``crowdcount doctor`` finds: facts of this installation, and each fault with its remedy."""

import json
import os
import sys
import tomllib
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
import torch

from crowdcount.workflows import doctor

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    """One requirement and one extra, whatever this environment holds."""
    needs = ["numpy>=1", "h5py>=3; extra == 'mat73'", "nothing-of-that-name; extra == 'siglip'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: needs)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


def faults():
    return {finding.name: finding for finding in doctor.examine() if finding.problem}


def old_package(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["numpy>=999"])
    return "numpy", "python -m pip install 'numpy>=999'"


def missing_package(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["nothing-of-that-name"])
    return "nothing-of-that-name", "python -m pip install 'nothing-of-that-name'"


def opencv_without_libraries(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "crowdcount.opencv")
    return "OpenCV", "opencv-python-headless"


def too_many_threads(monkeypatch):
    monkeypatch.setattr(doctor, "usable_cpus", lambda: 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    return "threads", "export OMP_NUM_THREADS=3"


def little_memory(monkeypatch):
    monkeypatch.setattr(doctor, "free_memory", lambda: 2**30)
    return "free memory", "--scale 0.5"


def little_shared_memory(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(64 * 2**20, 0, 0))
    return "shared memory", "--shm-size"


def closed_cache(monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "/proc/none/hub")
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).startswith("/proc"))
    return "cache of weights", "export TORCH_HOME=FOLDER"


FAULTS = [
    *(old_package, missing_package, opencv_without_libraries, too_many_threads),
    *(little_memory, little_shared_memory, closed_cache),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_alone_and_says_what_to_do(monkeypatch, fault):
    before = set(faults())
    name, advice = fault(monkeypatch)
    found = faults()
    assert set(found) - before == {name}
    assert advice in found[name].next_step


def test_extras_are_found_installed_or_not():
    values = {finding.name: finding.value for finding in doctor.examine()}
    assert values["extra mat73"].startswith("installed: ")
    assert values["extra siglip"].startswith("not installed: ")


def test_every_extra_for_users_is_described():
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    assert project["name"] == doctor.DISTRIBUTION
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"]) - {"test", "docs", "dev"}


def test_the_source_alone_can_be_examined(monkeypatch):
    def none(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", none)
    assert {"crowdcount", "OpenCV", "device"} <= {finding.name for finding in doctor.examine()}


def test_the_command_prints_facts_and_fails_with_what_is_wrong(run, monkeypatch):
    monkeypatch.setattr(doctor, "free_memory", lambda: 8 * 2**30)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(2**30, 0, 0))
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    assert "free memory\t8.0 GiB" in out
    little_memory(monkeypatch)
    code, out, err = run("doctor", "--json")
    assert code == 1
    assert "error: free memory: " in err
    assert "next step" in err
    (fault,) = (finding for finding in json.loads(out) if finding["problem"])
    assert fault["name"] == "free memory"
