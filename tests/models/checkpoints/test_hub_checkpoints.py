"""Checkpoints on the model hub, fetched from a stand-in on this machine."""

import hashlib
import json
import shutil
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

import crowdcount
from crowdcount.errors import InputMissingError, UntrustedFileError, UsageError
from crowdcount.models.checkpoints import hub
from crowdcount.models.checkpoints.hub import HubName
from crowdcount.models.checkpoints.names import resolve_checkpoint
from crowdcount.workflows.plan import new_run_config
from tests.stand_in_hub import point_client_at, running_hub

NAME = "hf://ours/square"


@pytest.fixture
def served(tmp_path, monkeypatch, checkpoint):
    """A hub that has the tiny model in ``ours/square``."""
    with running_hub() as server:
        point_client_at(server.url, cache=tmp_path / "cache", monkeypatch=monkeypatch)
        server.serve("ours/square", checkpoint)
        yield server


def fetched(name, **options):
    return resolve_checkpoint(name, **options).path


def lasting_name(name):
    return resolve_checkpoint(name).name


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [
        ("hf://ours/square", "ours/square", None),
        ("hf://a-b.c/d_e.f@v1.0", "a-b.c/d_e.f", "v1.0"),
        ("hf://a/b@refs/pr/3", "a/b", "refs/pr/3"),
    ],
)
def test_a_name_is_a_repository_and_a_revision(text, repository, revision):
    assert HubName.parse(text) == HubName(repository, revision)
    assert str(HubName.parse(text)) == text


@pytest.mark.parametrize("text", ["hf://a", "hf://a/b/c", "hf://a/b@", "hf://../b", "hf://a/b c"])
def test_another_way_of_writing_is_refused(text):
    with pytest.raises(UsageError, match="hf://OWNER/NAME@REVISION"):
        fetched(text)


def test_it_counts_like_the_checkpoint_that_was_served(served, checkpoint):
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    theirs, own = (crowdcount.load(name, device="cpu") for name in (NAME, checkpoint))
    assert theirs.count(image).total == own.count(image).total


def test_only_the_checkpoint_and_its_readme_are_fetched(served, tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("README.md", "training.log"):
        (tmp_path / "more" / name).write_text("words")
    served.serve("ours/square", tmp_path / "more")
    folder = fetched(NAME)
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors"}


def test_afterwards_no_network_is_needed(served, tmp_path, monkeypatch):
    folder = fetched(NAME)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    assert fetched(NAME) == folder
    served.asked.clear()
    assert fetched(NAME, offline=True) == folder
    assert served.asked == []


def test_a_revision_stays_and_the_name_alone_moves(served, tmp_path, checkpoint):
    first = fetched(NAME)
    lasting = lasting_name(NAME)
    assert lasting == f"{NAME}@{first.name}" == str(resolve_checkpoint(lasting))
    changed = shutil.copytree(checkpoint, tmp_path / "changed")
    config = json.loads((changed / "config.json").read_text())
    config["card"]["name"] = "second"
    (changed / "config.json").write_text(json.dumps(config))
    second = served.serve("ours/square", changed)
    assert fetched(NAME).name == second
    served.asked.clear()
    assert fetched(lasting) == first
    assert served.asked == []
    assert crowdcount.load(lasting, device="cpu").name == "tiny"
    assert crowdcount.load(NAME, device="cpu").name == "second"


def test_a_path_is_never_on_the_hub(served, workplace):
    with pytest.raises(InputMissingError, match="no checkpoint"):
        fetched(Path("hf://ours/square"))
    assert served.asked == []


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_a_person_learns_within_seconds_what_to_do(
    tmp_path, monkeypatch, offline
):
    url = f"http://127.0.0.1:{closed_port()}"
    point_client_at(url, cache=tmp_path, monkeypatch=monkeypatch)
    start = time.monotonic()
    with pytest.raises(InputMissingError) as caught:
        fetched(NAME, offline=offline)
    assert time.monotonic() - start < 5
    message = str(caught.value)
    assert ("--offline" in message) == offline
    for part in ("config.json", "model.safetensors", f"{url}/ours/square", str(tmp_path)):
        assert part in message
    assert "put them into a folder" in caught.value.next_step


def test_a_silent_hub_costs_no_more_than_waiting_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        point_client_at(url, cache=tmp_path, monkeypatch=monkeypatch)
        start = time.monotonic()
        with pytest.raises(InputMissingError, match="does not answer"):
            fetched(NAME)
        assert time.monotonic() - start < 2


def test_the_clients_own_variable_forbids_downloads_too(served, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputMissingError, match="forbidden"):
        fetched(NAME)
    assert served.asked == []


@pytest.mark.parametrize(
    "name", ["hf://ours/nothing", "hf://ours/square@v9", "hf://ours/incomplete"]
)
def test_what_the_hub_does_not_have_is_missing(served, tmp_path, checkpoint, name):
    (tmp_path / "incomplete").mkdir()
    shutil.copy(checkpoint / "config.json", tmp_path / "incomplete")
    served.serve("ours/incomplete", tmp_path / "incomplete")
    with pytest.raises(InputMissingError, match="cannot be loaded") as caught:
        fetched(name)
    assert name in caught.value.message


def test_weights_that_are_not_those_the_hub_lists_are_refused(served, checkpoint):
    weights = (checkpoint / "model.safetensors").read_bytes()
    served.lies["model.safetensors"] = weights[:-1] + bytes([weights[-1] ^ 1])
    with pytest.raises(UntrustedFileError) as caught:
        fetched(NAME)
    assert hashlib.sha256(weights).hexdigest() in caught.value.looked_for
    with pytest.raises(UntrustedFileError):
        fetched(NAME, offline=True)
    del served.lies["model.safetensors"]
    (damaged,) = Path(constants.HF_HUB_CACHE).glob("*/snapshots/*/model.safetensors")
    damaged.resolve().unlink()
    assert fetched(NAME) == damaged.parent


def test_a_name_in_the_environment_is_resolved_to_its_commit(served):
    first = resolve_checkpoint(NAME)
    named = {"CROWDCOUNT_CHECKPOINT": NAME}
    assert resolve_checkpoint(None, environment=named, offline=True) == first
    assert (first.name, first.revision) == (f"{NAME}@{first.path.name}", first.path.name)
    assert resolve_checkpoint(first) is first


def test_a_training_starts_from_one_commit_whatever_is_pushed(served):
    config = new_run_config({"train": {"init": NAME}})
    assert config.train.init == lasting_name(NAME)
    assert config.model.backbone == "timm:test_resnet"


# ---- commands


@pytest.fixture
def run(run, workplace):
    """Run a command in an empty working directory."""
    return run


def test_predict_says_which_commit_counted(served, run):
    Image.new("RGB", (64, 64)).save("a.png")
    code, out, err = run("predict", "a.png", "--checkpoint", NAME)
    assert code == 0
    assert out.startswith("a.png\t")
    assert err.startswith(f"model {lasting_name(NAME)}\n")
    assert run("predict", "a.png", "--checkpoint", NAME, "--offline")[:2] == (0, out)


def test_a_card_of_the_hub_is_shown_and_packed(served, run):
    code, out, _ = run("models", "show", NAME)
    assert (code, out.splitlines()[0]) == (0, "tiny")
    assert run("models", "pack", NAME, "-o", "ours")[:2] == (0, "ours\n")
    assert crowdcount.load("ours", device="cpu").name == "tiny"


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "a.png", "--checkpoint", NAME),
        ("eval", "--checkpoint", NAME),
        ("train", "--init", NAME),
        ("models", "show", NAME),
        ("models", "pack", NAME, "-o", "ours"),
    ],
)
@pytest.mark.parametrize("by", ["flag", "variable"])
def test_offline_no_command_asks_anybody(served, run, monkeypatch, command, by):
    if by == "variable":
        monkeypatch.setenv("CROWDCOUNT_OFFLINE", "1")
    code, out, err = run(*command, *(["--offline"] if by == "flag" else []))
    assert (code, out) == (3, "")
    assert "--offline" in err
    assert served.asked == []
