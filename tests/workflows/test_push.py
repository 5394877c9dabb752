"""``models push``: what is uploaded counts as before, says what it is, and tells no paths."""

import functools
import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants

import crowdcount
from crowdcount.files import sha256_file
from crowdcount.models.checkpoints.card import CardText, Source
from crowdcount.workflows.card import card_lines, pack, read_card
from crowdcount.workflows.push import PUSHED, readme
from tests.stand_in_hub import TOKEN, Repository, point_client_at, running_hub

TEXT = CardText(
    title="Counts our square",
    licence="MIT",
    data=(Source(name="square", terms="our own"),),
    known_failures=("```\n# Not a heading",),
)


@pytest.fixture
def run(run, workplace):
    return functools.partial(run, "models", "push")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with running_hub() as server:
        point_client_at(server.url, cache=tmp_path / "cache", monkeypatch=monkeypatch)
        yield server


@pytest.fixture
def token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def packed(checkpoint, tmp_path):
    """A checkpoint with words, its weights in float16."""
    pack(checkpoint, tmp_path / "packed", text=TEXT, half=True)
    return tmp_path / "packed"


def front_matter(readme):
    _, matter, body = readme.split("---\n", 2)
    return yaml.safe_load(matter), body


def test_what_was_pushed_counts_as_before(run, hub, token, packed):
    code, out, err = run(packed, "ours/square")
    assert code == 0, err
    (files,) = hub.repositories["ours/square"].commits
    assert sorted(files) == sorted(PUSHED)
    assert not hub.repositories["ours/square"].private
    pushed = out.strip()
    assert pushed.startswith("hf://ours/square@")
    fetched = crowdcount.load(pushed, device="cpu")
    own = crowdcount.load(packed, device="cpu")
    assert fetched.name == own.name
    folder = Path(constants.HF_HUB_CACHE) / "models--ours--square" / "snapshots"
    (weights,) = folder.glob("*/model.safetensors")
    assert sha256_file(weights) == sha256_file(packed / "model.safetensors")


def test_a_second_push_is_another_commit(run, hub, token, packed, checkpoint):
    first, second = (run(each, "ours/square")[1] for each in (packed, checkpoint))
    assert first != second
    assert len(hub.repositories["ours/square"].commits) == 2


def test_the_readme_is_the_card(packed):
    card = read_card(packed)
    matter, body = front_matter(readme(card, "ours/square"))
    assert matter == {
        "library_name": "crowdcount",
        "license": "mit",
        "tags": ["crowd-counting", "timm:test_resnet"],
    }
    assert "# tiny\n\nCounts our square\n" in body
    assert "--checkpoint hf://ours/square\n" in body
    for line in card_lines(card):
        if not line.startswith("  on disk"):
            assert f"    {line}" in body.splitlines()
    assert str(packed) not in body


@pytest.mark.parametrize(
    ("text", "licence"),
    [(None, None), (CardText(title="x", licence="Research only; MIT code"), "other")],
)
def test_the_licence_is_never_more_than_the_card_says(checkpoint, tmp_path, text, licence):
    pack(checkpoint, tmp_path / "packed", text=text)
    matter, _ = front_matter(readme(read_card(tmp_path / "packed"), "a/b"))
    assert matter.get("license") == licence


def test_no_path_of_this_machine_is_pushed(run, hub, token, tmp_path, packed):
    config = json.loads((packed / "config.json").read_text())
    config["model"]["weights"] = str(tmp_path / "first.pth")
    (packed / "config.json").write_text(json.dumps(config))
    assert run(packed, "ours/square")[0] == 0
    (files,) = hub.repositories["ours/square"].commits
    assert json.loads(files["config.json"])["model"]["weights"] == "first.pth"
    for content in files.values():
        assert str(tmp_path).encode() not in content


def test_private_is_private_or_nothing_is_pushed(run, hub, token, packed):
    assert run(packed, "ours/hidden", "--private")[0] == 0
    assert hub.repositories["ours/hidden"].private
    hub.repositories["ours/open"] = Repository()
    code, out, err = run(packed, "ours/open", "--private")
    assert (code, out) == (2, "")
    assert "is public" in err
    assert hub.repositories["ours/open"].commits == []


def test_a_dry_run_prints_the_readme_and_asks_nobody(run, hub, packed):
    code, out, err = run(packed, "ours/square", "--dry-run")
    assert code == 0
    assert front_matter(out)[0]["license"] == "mit"
    assert all(name in err for name in PUSHED)
    assert hub.asked == []


def test_without_a_token_nothing_is_asked(run, hub, packed):
    code, out, err = run(packed, "ours/square")
    assert (code, out) == (3, "")
    assert "no token" in err
    assert "HF_TOKEN" in err
    assert hub.asked == []


def test_a_token_without_write_access_is_reported(run, hub, packed, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    code, out, err = run(packed, "ours/square")
    assert (code, out) == (1, "")
    assert "cannot be pushed" in err
    assert "may write there" in err
    assert "Traceback" not in err


def test_without_a_network_it_says_so(run, hub, token, packed, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, out, err = run(packed, "ours/square")
    assert (code, out) == (3, "")
    assert "HF_HUB_OFFLINE is set" in err
    assert hub.asked == []


@pytest.mark.parametrize("name", ["square", "a/b/c", "hf://a/b"])
def test_another_name_is_refused_before_anything_is_done(run, hub, packed, name):
    code, out, err = run(packed, name, "--dry-run")
    assert (code, out) == (2, "")
    assert "OWNER/NAME" in err
