import hashlib
import http.server
import re
import socket
import sys
import threading
import time
from contextlib import contextmanager

import pytest
import torch
from huggingface_hub import constants
from torch.testing import assert_close

from crowdcount.core.bins import Bins
from crowdcount.errors import InputMissingError, UntrustedFileError
from crowdcount.models.backbones import BACKBONES
from crowdcount.models.build import build_model
from crowdcount.models.checkpoints import hub
from crowdcount.models.config import ModelConfig
from tests.stand_in_hub import point_client_at, running_hub

BINS = Bins(block=8, starts=(0, 1, 2), values=(0.0, 1.0, 2.2))
BUILT = ["clip-rn50", "timm:test_resnet"]


@pytest.fixture(autouse=True)
def _no_hub(tmp_path, monkeypatch):
    """An empty cache, and a hub at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@contextmanager
def serving(content):
    """A server that sends the same whatever it is asked for."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("backbone", BUILT)
@pytest.mark.parametrize("offline", [True, False])
def test_without_weights_a_person_learns_within_seconds_what_to_do(backbone, offline):
    start = time.monotonic()
    with pytest.raises(InputMissingError) as caught:
        build_model(ModelConfig(backbone=backbone), BINS, offline=offline)
    assert time.monotonic() - start < 5
    message = str(caught.value)
    assert ("--offline" in message) == offline
    # The file that is fetched is the one that is passed.
    address, weights = re.findall(r"curl -LO (https://\S+), then pass --weights (\S+);", message)[0]
    assert address.rpartition("/")[2] == weights
    assert "/timm/" in address
    assert "--no-pretrained" in message
    assert "timm/" in caught.value.looked_for  # the repository to fetch


def test_offline_asks_nobody(monkeypatch):
    def fail():
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(hub, "hub_answers", fail)
    with pytest.raises(InputMissingError):
        build_model(ModelConfig(backbone="timm:test_resnet"), BINS, offline=True)


def test_a_hub_that_is_silent_counts_as_out_of_reach(monkeypatch):
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert not hub.hub_answers()
        assert time.monotonic() - start < 2


def test_a_hub_that_answers_is_found(monkeypatch):
    with serving(b"") as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        assert hub.hub_answers()


def test_cached_weights_need_no_network(tmp_path):
    import timm
    from safetensors.torch import save_file

    source = timm.create_model("test_resnet")
    repository = tmp_path / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    save_file(source.state_dict(), snapshot / "model.safetensors")

    model = build_model(ModelConfig(backbone="timm:test_resnet"), BINS, offline=True)
    images = torch.rand(1, 3, 64, 64)
    assert_close(model.eval().encoder(images)[-1], source.eval().forward_features(images))


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize(
    ("backbone", "library", "source", "cached"),
    [
        (
            *("clip-rn50", "open_clip", "timm/resnet50_clip.openai"),
            "models--timm--resnet50_clip.openai/snapshots/1/open_clip_model.safetensors",
        ),
        (
            *("vgg19", "torchvision", "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"),
            "checkpoints/vgg19-dcbb9e9d.pth",
        ),
    ],
)
def test_the_table_knows_where_weights_lie_so_that_no_library_is_imported_in_vain(
    tmp_path, monkeypatch, offline, backbone, library, source, cached
):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    for module in [each for each in sys.modules if each.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)  # to import it is an error
    message = "downloads are forbidden" if offline else "the model hub does not answer"
    with pytest.raises(InputMissingError, match=message) as caught:
        build_model(ModelConfig(backbone=backbone), BINS, offline=offline)
    assert source in caught.value.looked_for
    cached = tmp_path / cached
    cached.parent.mkdir(parents=True)
    cached.touch()
    if "snapshots" in cached.parts:
        refs = cached.parents[2] / "refs"
        refs.mkdir()
        (refs / "main").write_text("1")
    with pytest.raises((ImportError, UntrustedFileError)):  # the file is empty
        build_model(ModelConfig(backbone=backbone), BINS, offline=offline)


def fetched(source, *, offline=True):
    return hub.weights_file("x", source=source, names=hub.TIMM_FILES, offline=offline)


@pytest.mark.parametrize("source", ["theirs/tiny", "https://127.0.0.1/weights.pth"])
def test_offline_nothing_is_fetched(tmp_path, monkeypatch, source):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(hub, "hub_answers", lambda: True)
    with pytest.raises(InputMissingError, match="forbidden"):
        fetched(source)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "weights.pth").touch()
    if "://" in source:
        assert fetched(source) == tmp_path / "checkpoints" / "weights.pth"


@pytest.mark.parametrize("served", hub.TIMM_FILES)
def test_the_file_that_a_repository_has_is_fetched_once(tmp_path, monkeypatch, served):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / served).write_bytes(b"weights")
    with running_hub() as server:
        point_client_at(server.url, cache=tmp_path / "cache", monkeypatch=monkeypatch)
        commit = server.serve("theirs/tiny", tmp_path / "files")
        path = fetched("theirs/tiny/", offline=False)
        assert (path.name, path.read_bytes()) == (served, b"weights")
        assert fetched(f"theirs/tiny@{commit}", offline=False) == path
        server.asked.clear()
        assert fetched("theirs/tiny") == fetched(f"theirs/tiny/{served}") == path
        assert server.asked == []


# ---- checksums


@pytest.mark.parametrize("path", ["tiny-{}.pth", "tiny_a1-{}.safetensors", "clip/{}/RN50.pt"])
def test_a_file_must_have_the_checksum_in_its_url(tmp_path, monkeypatch, path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    digest = hashlib.sha256(b"weights").hexdigest()
    path = path.format(digest if "/" in path else digest[:8])
    cached = tmp_path / "checkpoints" / path.rpartition("/")[2]
    with serving(b"weights") as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        assert fetched(f"{url}/{path}", offline=False) == cached
    cached.write_bytes(b"others")
    with pytest.raises(UntrustedFileError, match=re.escape(str(cached))) as caught:
        fetched(f"{url}/{path}")
    assert hashlib.sha256(b"others").hexdigest() in caught.value.looked_for
    assert "delete it" in caught.value.next_step
    cached.unlink()
    with serving(b"others") as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        with pytest.raises(UntrustedFileError, match=re.escape(url)):
            fetched(f"{url}/{path}", offline=False)
    assert list(cached.parent.iterdir()) == []


@pytest.mark.parametrize("source", ["theirs/tiny", "theirs/tiny/", "theirs/tiny/model.safetensors"])
def test_a_cached_file_of_the_hub_must_have_the_checksum_that_the_hub_lists(tmp_path, source):
    repository = tmp_path / "models--theirs--tiny"
    for folder in ("blobs", "refs", "snapshots/1"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text("1")
    blob = repository / "blobs" / hashlib.sha256(b"weights").hexdigest()
    blob.write_bytes(b"weights")
    (repository / "snapshots" / "1" / "model.safetensors").symlink_to(blob)
    assert fetched(source).read_bytes() == b"weights"
    blob.write_bytes(b"others")
    with pytest.raises(UntrustedFileError):
        fetched(source)


@pytest.mark.parametrize("name", ["clip-rn50", "clip-vit-b-16", "vgg19", "resnet50", "csrnet_bn"])
def test_checksums_of_the_published_weights_are_stated_where_they_are_looked_for(name):
    """In OpenAI's URLs by folder, in torchvision's by file."""
    spec = BACKBONES[name]
    if spec.family == "clip":
        import open_clip

        url = open_clip.get_pretrained_cfg(spec.library_name, spec.tag)["url"]
    else:
        import torchvision

        url = torchvision.models.get_model_weights(spec.library_name)[spec.tag].url
    assert hub._HASH_IN_URL.search(url)
