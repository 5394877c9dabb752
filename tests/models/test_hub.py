import http.server
import socket
import threading
import time

import pytest
import torch
from huggingface_hub import constants
from torch.testing import assert_close

from crowdcount.core.bins import Bins
from crowdcount.errors import InputMissingError
from crowdcount.models import hub
from crowdcount.models.build import build_model
from crowdcount.models.config import ModelConfig

BINS = Bins(block=8, starts=(0, 1, 2), values=(0.0, 1.0, 2.2))
BACKBONES = ["clip-rn50", "timm:test_resnet"]


@pytest.fixture(autouse=True)
def _no_hub(tmp_path, monkeypatch):
    """An empty cache, and a hub at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("offline", [True, False])
def test_without_weights_a_person_learns_within_seconds_what_to_do(backbone, offline):
    start = time.monotonic()
    with pytest.raises(InputMissingError) as caught:
        build_model(ModelConfig(backbone=backbone), BINS, offline=offline)
    assert time.monotonic() - start < 5
    message = str(caught.value)
    assert ("--offline" in message) == offline
    assert "--weights FILE" in message
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
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        try:
            assert hub.hub_answers()
        finally:
            server.shutdown()
            thread.join()


def test_the_clients_offline_switch_is_put_back():
    before = constants.HF_HUB_OFFLINE
    with hub.hub_offline():
        assert constants.HF_HUB_OFFLINE
    assert before == constants.HF_HUB_OFFLINE


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


def test_a_url_is_not_fetched_when_offline(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    url = "http://127.0.0.1/weights.pth"
    with pytest.raises(InputMissingError), hub.downloads("x", source=url, offline=True):
        pytest.fail("the library was asked")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "weights.pth").touch()
    with hub.downloads("x", source=url, offline=True):
        pass
