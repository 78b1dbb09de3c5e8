"""The whole road through the commands a user types, at toy size, with the network switched off."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]

NO_NETWORK = """
import socket

def refuse(self, address):
    if self.family != socket.AF_UNIX:
        raise OSError(f"this test allows no network connection, not even to {address}")

socket.socket.connect = refuse
socket.socket.connect_ex = refuse
"""


class Shell:
    """Runs `python -m ...` without a network; keeps what was said."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        (directory / "sitecustomize.py").write_text(NO_NETWORK)
        self.environment = {**os.environ, "PYTHONPATH": f"{directory}:{ROOT}"}

    def __call__(self, *arguments: object, status: int = 0) -> str:
        command = [sys.executable, "-m", *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
        if status:
            assert "Traceback" not in done.stderr and done.stderr.strip(), done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("shell") / "site")


@pytest.fixture(scope="module")
def chain(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """synth → extract → train → vos; returns the directory that holds everything."""
    home = tmp_path_factory.mktemp("chain")
    shell(
        "pipeline",
        "synth",
        "--out",
        home / "synth",
        "--videos",
        6,
        "--davis-sequences",
        2,
        "--frames",
        12,
        "--size",
        "96x128",
    )
    extract = ["pipeline", "extract", "--dataset", "synthetic", "--root", home / "synth/videos", "--out", home / "set"]
    shell(*extract, "--passes", 2, "--image-size", 96, "--flow-size", 48, "--chunk-videos", 4)
    train = [
        "trainer",
        "train",
        "--config",
        ROOT / "configs/demo.toml",
        "--shards",
        home / "set",
        "--out",
        home / "run",
    ]
    shell(
        *train,
        "encoder.variant=tiny_dino8",
        "views.image_size=48",
        "train.steps=6",
        "train.batch_size=4",
        "log.pictures_every=3",
    )
    probe = ["probes", "vos", "--model", home / "run/flowfeat.safetensors", "--davis", home / "synth/davis"]
    shell(*probe, "--out", home / "run/report", "--height", 48, "--iterations", 20)
    return home


def test_report_has_the_promised_table(chain: Path) -> None:
    with open(chain / "run/report/vos.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["source", "sequence", "object", "J", "F", "JF", "protocol"]
    means = {row["source"]: float(row["JF"]) for row in rows if row["sequence"] == "mean"}
    assert set(means) == {"encoder", "random_decoder", "flowfeat", "chance"}
    assert all(0 <= value <= 100 for value in means.values())
    html = (chain / "run/report/index.html").read_text()
    pictures = [unquote(part.split('"')[0]) for part in html.split('src="')[1:]]
    assert pictures and all((chain / "run/report" / name).is_file() for name in pictures)
    assert "http://" not in html and "https://" not in html.replace("https://arxiv.org", "")


def test_run_leaves_models_logs_and_config(chain: Path) -> None:
    run = chain / "run"
    assert (
        (run / "flowfeat.safetensors").is_file()
        and (run / "flowfeat.pth").is_file()
        and (run / "config.toml").is_file()
    )
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "stop" and events[-1]["step"] == 6
    assert list((run / "tensorboard").iterdir())


def test_everything_can_be_run_again(chain: Path, shell: Shell) -> None:
    before = (chain / "set/manifest.json").read_bytes()
    extract = [
        "pipeline",
        "extract",
        "--dataset",
        "synthetic",
        "--root",
        chain / "synth/videos",
        "--out",
        chain / "set",
    ]
    text = shell(*extract, "--passes", 2, "--image-size", 96, "--flow-size", 48, "--chunk-videos", 4)
    assert "nothing left to do" in text and (chain / "set/manifest.json").read_bytes() == before
    shell("probes", "report", "--out", chain / "run/report")


def test_verify_and_inspect(chain: Path, shell: Shell, tmp_path: Path) -> None:
    assert "intact" in shell("pipeline", "verify", chain / "set", "--deep")
    shell("pipeline", "inspect", chain / "set", "--out", tmp_path / "sheet.png", "--samples", 2)
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"
    shard = chain / "set/pass-01/000001.tar"
    original = shard.read_bytes()
    try:
        shard.write_bytes(original[:3000] + bytes([original[3000] ^ 1]) + original[3001:])
        assert "pass-01/000001.tar" in shell("pipeline", "verify", chain / "set", status=4)
    finally:
        shard.write_bytes(original)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pipeline", "extract", "--dataset", "folder", "--root", "no/such/place", "--out", "OUT"], "no/such/place"),
        (["pipeline", "extract", "--dataset", "folder", "--root", "EMPTY", "--out", "OUT"], "video"),
        (
            ["pipeline", "extract", "--dataset", "synthetic", "--root", "VIDEOS", "--out", "OUT", "--flow", "diss"],
            "did you mean dis",
        ),
        (
            ["pipeline", "extract", "--dataset", "synthetic", "--root", "VIDEOS", "--out", "OUT", "--weights", "x"],
            "takes no weights",
        ),
        (
            ["pipeline", "extract", "--dataset", "synthetic", "--root", "VIDEOS", "--out", "SET", "--seed", "9"],
            "seed: 0 in the set, 9",
        ),
        (["pipeline", "verify", "OUT"], "no shard set at"),
        (["pipeline", "inspect", "SET", "--key", "nope"], "no sample is called 'nope'"),
        (["trainer", "train", "--shards", "OUT", "--out", "RUN2", "encoder.init=random"], "no shard set at"),
        (["trainer", "train", "--shards", "SET", "--out", "RUN2", "train.stepps=3"], "train.steps"),
        (["probes", "vos", "--model", "OUT/model.pth", "--davis", "DAVIS", "--out", "OUT"], "model.pth"),
        (["probes", "vos", "--model", "MODEL", "--davis", "EMPTY", "--out", "OUT"], "JPEGImages"),
    ],
)
def test_bad_input_is_one_line(chain: Path, shell: Shell, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    places = {
        "OUT": tmp_path / "out",
        "EMPTY": tmp_path / "empty",
        "VIDEOS": chain / "synth/videos",
        "SET": chain / "set",
    }
    places |= {"RUN2": tmp_path / "run2", "DAVIS": chain / "synth/davis", "MODEL": chain / "run/flowfeat.safetensors"}
    filled = [str(places[a]) if a in places else a.replace("OUT/", f"{tmp_path}/out/") for a in arguments]
    text = shell(*filled, status=1)
    assert message in text, text


def test_more_rejects_than_allowed_is_a_failure(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.mp4").write_bytes(b"")
    text = shell(
        "pipeline", "extract", "--dataset", "folder", "--root", tmp_path / "bad", "--out", tmp_path / "set", status=3
    )
    assert "rejected a: empty_file" in text and "1 of 1 video was rejected" in text
