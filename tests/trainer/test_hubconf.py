"""torch.hub.load on this checkout: from elsewhere, without the packages that only other stages need."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hubconf
from tests.common.download_server import Server
from tests.module_graph import ROOT
from tests.trainer.model_fixtures import encoder_state, random_state
from trainer import encoder_weights, official_models
from trainer.published import Published

NAME = "dino_vits16_yt"
ELSEWHERE = """
import sys
for name in ("pyarrow", "cv2", "decord", "webdataset", "tensorboard", "simplejpeg", "zstandard", "PIL", "pipeline"):
    sys.modules[name] = None  # an import of it would fail
import torch
repository, name = sys.argv[1:]
model = torch.hub.load(repository, "flowfeat", name=name, pretrained=True, source="local")
assert not model.training
low, high = model(torch.zeros(1, 3, 32, 64))
assert low.shape == (1, 384, 2, 4) and high.shape == (1, 128, 32, 64)
assert torch.equal(model.extract(torch.zeros(3, 32, 64), normalised=True).high, high[0])
"""


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path / "cache"))
    torch.save(random_state("tiny_mae16"), tmp_path / "published.pth")
    server.content = (tmp_path / "published.pth").read_bytes()
    monkeypatch.setitem(official_models.OFFICIAL_MODELS, "tiny_mae16_kt", Published(server.url))


def test_an_official_name_from_elsewhere_with_what_the_entry_declares(tmp_path: Path) -> None:
    cached = tmp_path / "cache/models" / official_models.OFFICIAL_MODELS[NAME].file_name
    cached.parent.mkdir(parents=True)
    torch.save(random_state(NAME.removesuffix("_yt")), cached)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"FLOWFEAT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(ROOT), NAME],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_there_is_one_entry_as_torch_hub_lists_them() -> None:
    assert [name for name in dir(hubconf) if callable(getattr(hubconf, name)) and name[0] != "_"] == ["flowfeat"]


def test_the_entry_fetches_and_takes_the_official_arguments(published: None) -> None:
    model = torch.hub.load(
        str(ROOT),
        "flowfeat",
        name="tiny_mae16_kt",
        map_location="cpu",
        strict=True,
        fdim=16,
        patch_size=16,
        source="local",
    )
    expected = random_state("tiny_mae16")
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    arguments = inspect.signature(hubconf.flowfeat).parameters
    assert list(arguments)[:4] == ["name", "pretrained", "map_location", "strict"]
    assert arguments["name"].default == "dinov2_vits14_yt"


def test_untrained_has_the_published_encoder(
    published: None, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoder_state("tiny_mae16", seed=5)
    torch.save({"model": encoder}, tmp_path / "encoder.pth")
    server.content = (tmp_path / "encoder.pth").read_bytes()
    monkeypatch.setitem(encoder_weights.PUBLISHED, "tiny_mae16", Published(server.url))
    model = hubconf.flowfeat("tiny_mae16_kt", pretrained=False, fdim=24)
    assert all(torch.equal(value, encoder[key]) for key, value in model.encoder.state_dict().items())
    assert model.feature_dim == 24 and not model.training


def test_what_does_not_fit_is_named(published: None) -> None:
    with pytest.raises(ValueError, match="did you mean dino_vits16_yt"):
        hubconf.flowfeat("dino_vits16")
    with pytest.raises(ValueError, match="fdim = 128, but tiny_mae16_kt has 16 channels"):
        hubconf.flowfeat("tiny_mae16_kt")
    with pytest.raises(ValueError, match="patches of 16 pixels"):
        hubconf.flowfeat("tiny_mae16_kt", fdim=16, patch_size=14)
