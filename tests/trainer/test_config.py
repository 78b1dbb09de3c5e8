"""The config refuses everything it does not understand, and says where and what instead."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from trainer.config import Config, changed_settings, flatten, load_config, to_toml
from trainer.encoder_table import spec_of

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "some.toml"
    path.write_text(text)
    return path


def test_defaults_are_the_papers() -> None:
    settings = flatten(load_config())
    paper = {
        "encoder.variant": "dinov2_vits14",
        "encoder.init": "pretrained",
        "views.image_size": 224,
        "views.crop_scale": (0.5, 0.75),
        "train.batch_size": 128,
        "train.lr": 1e-4,
        "train.betas": (0.9, 0.999),
        "train.weight_decay": 0.0,
        "train.precision": "fp32",
        "loss.alpha": 1.0,
        "loss.sigma": 0.1,
        "loss.flow_weight": 0.1,
        "loss.grad_weight": 1.0,
        "loss.flow_kind": "l1",
        "teacher.max_decay": 0.999,
        "teacher.every": 5,
        "data.offsets": (),
    }
    assert {key: settings[key] for key in paper} == paper


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda p: p.name)
def test_shipped_configs_are_valid(path: Path) -> None:
    config = load_config(path)
    assert config.views.image_size % (2 * spec_of(config.encoder.variant).patch) == 0


def test_file_then_overrides(tmp_path: Path) -> None:
    path = written(
        tmp_path, '[train]\nsteps = 7\nlr = 1\n[encoder]\nvariant = "tiny_dino8"\n[data]\noffsets = [1, 2]\n'
    )
    config = load_config(
        path, ["train.steps=9", "views.crop_scale=[0.6, 0.7]", "data.shards=2024", "log.tensorboard=false"]
    )
    assert (config.train.steps, config.train.lr, config.encoder.variant) == (9, 1.0, "tiny_dino8")
    assert config.data.offsets == (1, 2) and config.views.crop_scale == (0.6, 0.7)
    assert config.data.shards == "2024" and config.log.tensorboard is False


def test_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_config().train.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[train]\nbatchsize = 4", ["'train.batchsize'", "train.batch_size", "some.toml"]),
        ("[train]\nalpha = 4", ["'train.alpha'", "loss.alpha"]),
        ("[trian]\nsteps = 4", ["'trian'", "train"]),
        ("steps = 4", ["'steps'", "train.steps"]),
        ("[zzzzzz]\nq = 4", ["'zzzzzz'", "encoder", "teacher"]),
        ("train = 4", ["train = 4", "section"]),
        ('[train]\nsteps = "many"', ["train.steps = 'many'", "whole number"]),
        ("[train]\nsteps = 4.5", ["train.steps = 4.5", "whole number"]),
        ("[train]\nsteps = true", ["train.steps = True", "whole number"]),
        ("[train]\nsteps = 0", ["train.steps = 0", "at least 1"]),
        ("[train]\nlr = -1.0", ["train.lr = -1.0", "greater than 0"]),
        ("[train]\nlr = nan", ["train.lr = nan", "finite"]),
        ("[train]\nlr = inf", ["train.lr = inf", "finite"]),
        ("[loss]\nalpha = 0", ["loss.alpha = 0", "greater than 0"]),
        ("[data]\nmax_failed_share = 1.5", ["data.max_failed_share = 1.5", "at most 1"]),
        ("[views]\ncrop_scale = [0.5]", ["views.crop_scale = [0.5]", "a list of 2 numbers"]),
        ("[views]\ncrop_scale = [0.9, 0.5]", ["0.9", "0.5", "must not exceed"]),
        ("[views]\ncrop_scale = [0.0, 0.5]", ["greater than 0"]),
        ('[data]\noffsets = ["a"]', ["data.offsets", "whole numbers"]),
        ('[train]\nprecision = "fp16"', ["train.precision = 'fp16'", '"bf16"']),
        ("[log]\ntensorboard = 1", ["log.tensorboard = 1", "true or false"]),
        ("[train]\nbatch_size = 10\naccumulate = 3", ["train.accumulate = 3", "train.batch_size = 10"]),
        ('[encoder]\ninit = "random"\nweights = "x.pth"', ["encoder.init", "'x.pth'"]),
        ("[loss]\nflow_weight = 0\ngrad_weight = 0", ["nothing to train on"]),
        ("[train\nsteps = 4", ["some.toml", "not valid TOML"]),
    ],
)
def test_bad_files_are_refused_with_value_and_place(tmp_path: Path, text: str, expected: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        load_config(written(tmp_path, text))
    message = str(error.value)
    assert "some.toml" in message and "\n" not in message.strip()
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.steps", "section.key=value"),
        ("train.step=4", "did you mean train.steps"),
        ("steps=4", "train.steps"),
        ("train=4", "unknown setting 'train'"),
        ("train.steps=x", "train.steps = 'x'"),
        ("train.precision=fp16", "one of"),
        ("loss.sigma=0", "greater than 0"),
        ("train.accumulate=3", "does not divide"),
    ],
)
def test_bad_overrides_are_refused(override: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected.replace(".", r"\.")):
        load_config(None, [override])


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.toml does not exist"):
        load_config(tmp_path / "nowhere.toml")


def test_resolved_config_reads_back_equal(tmp_path: Path) -> None:
    config = load_config(
        None, ['data.shards=odd "name" ü', "data.offsets=[-2,1]", "train.lr=3e-05", "train.compile=true"]
    )
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    assert load_config(path) == config != Config()


def test_what_a_resumed_run_may_not_change() -> None:
    base = load_config()
    assert changed_settings(base, load_config(None, ["train.steps=5", "data.workers=0", "log.every=1"])) == []
    changed = changed_settings(base, load_config(None, ["train.lr=1.0", "train.seed=3", "data.offsets=[1]"]))
    assert [line.split(":")[0] for line in changed] == ["data.offsets", "train.seed", "train.lr"]


@pytest.mark.parametrize("order", [1, -1])
def test_overrides_that_are_valid_together_are_valid_in_any_order(order: int) -> None:
    config = load_config(None, ["train.accumulate=3", "train.batch_size=9"][::order])
    assert (config.train.accumulate, config.train.batch_size) == (3, 9)
    config = load_config(None, ["encoder.init=random", "train.batch_size=9", "train.batch_size=6"][::order])
    assert config.train.batch_size == (6 if order == 1 else 9), "the last one counts"
