"""Every array of the forward fixtures against this implementation (CPU, float32)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.model_fixtures import TINY, meta_of, parity_weights, tensors, tiny_model, vit_of
from trainer.encoder_table import spec_of
from trainer.flowfeat import FlowFeat

RELATIVE = 5e-6  # of an array's largest value, 40 times float32's rounding; above atol only where values exceed 10


def assert_near(name: str, got: torch.Tensor, wanted: np.ndarray, atol: float) -> None:
    values = got.detach().numpy()
    assert values.shape == wanted.shape, f"{name}: {values.shape}, not {wanted.shape}"
    worst = float(np.abs(values - wanted).max())
    allowed = max(
        atol, RELATIVE * float(np.abs(wanted).max())
    )  # an intermediate of size 20 rounds at 2e-6 per operation
    assert worst <= allowed, f"{name}: off by {worst:.2e}, allowed {allowed:.0e}"


class Recorder:
    """Outputs of named modules, cloned before a later in-place operation can touch them."""

    def __init__(self, model: FlowFeat, names: dict[str, str]) -> None:
        self.seen: dict[str, torch.Tensor] = {}
        for label, path in names.items():
            model.get_submodule(path).register_forward_hook(self._keep(label))

    def _keep(self, label: str):  # type: ignore[no-untyped-def]
        def hook(_module: object, _inputs: object, output: torch.Tensor) -> None:
            self.seen[label] = output.detach().clone()

        return hook


@pytest.mark.parametrize("family", list(TINY))
def test_tiny_models_agree_in_every_array(family: str, data_dir: Path) -> None:
    arrays = np.load(data_dir / "parity_tiny.npz")
    meta = meta_of(arrays)
    number, atol = list(TINY).index(family), meta["atol"]
    model = tiny_model(arrays, family)
    recorder = Recorder(model, {"prenorm": "decoder.scratch.output_conv1"})
    h, w = meta["hw"][number]
    gh, gw = h // model.patch_size, w // model.patch_size
    images = torch.from_numpy(parity_weights.image(meta["seed"] + 20 + number, 2, h, w))

    low, high = model(images)
    got = {"y_enc": low, "y_dec": high[..., ::3, ::3]}
    got |= {f"hook{level}": tokens[0] for level, tokens in enumerate(vit_of(model).tokens(images), start=1)}
    faint = 0.01 * parity_weights.normals(meta["seed"] + 30 + number, 2, 1 + gh * gw, meta["dim"])
    maps = (vit_of(model).maps(torch.from_numpy(faint), gh, gw),) * 4
    got["y_dec_small"] = model.decode(maps, (h, w))[..., ::3, ::3]
    got["y_prenorm_small"] = recorder.seen["prenorm"][..., ::3, ::3]

    stored = {key.removeprefix(f"{family}/") for key in arrays.files if key.startswith(f"{family}/")}
    assert stored == set(got)
    for name in sorted(stored):
        assert_near(f"{family}/{name}", got[name], arrays[f"{family}/{name}"], atol)


def intermediate_names() -> dict[str, str]:
    levels = range(1, 5)
    names = {f"act{k}": f"decoder.act_postprocess{k}" for k in levels}
    names |= {f"rn{k}": f"decoder.scratch.layer{k}_rn" for k in levels}
    names |= {f"path{k}": f"decoder.scratch.refinenet{k}" for k in levels}
    return names | {"conv0": "decoder.scratch.output_conv0", "prenorm": "decoder.scratch.output_conv1"}


def subsampled(name: str, value: torch.Tensor) -> torch.Tensor:
    """The fixture's strides for an intermediate (its meta names them)."""
    kind, level = name.rstrip("1234"), int(name[-1]) if name[-1] in "1234" else 0
    if kind == "hook":
        return value[:, ::5, ::24]
    if kind == "act":
        stride = (4, 2, 1, 1)[level - 1]
        return value[:, ::48, ::stride, ::stride]
    stride = {"rn": (4, 2, 1, 1), "path": (8, 4, 2, 1)}[kind][level - 1] if kind in ("rn", "path") else 0
    stride = {"conv": 8, "prenorm": 7}.get(kind.rstrip("0"), stride)
    return value[:, ::16, ::stride, ::stride]


@pytest.mark.parametrize("variant", ["dino_vits16", "dinov2_vits14", "mae_vitb16"])
def test_official_variants_agree_in_every_intermediate(variant: str, shared_dir: Path) -> None:
    arrays = np.load(shared_dir / "parity" / "model" / f"parity_flowfeat_{variant}.npz")
    meta = meta_of(arrays)
    shapes = parity_weights.load_shapes(shared_dir / "reference" / meta["keys"])
    state = parity_weights.make_state_dict(shapes, meta["weight_seed"])
    np.testing.assert_allclose(parity_weights.checksum(state), arrays["weights_checksum"], rtol=1e-12)
    model = FlowFeat.blank(spec_of(variant), variant)
    model.load_state_dict(tensors(state))
    blocks = {f"hook{k}": f"encoder.blocks.{number}" for k, number in enumerate(vit_of(model).spec.hooks, start=1)}
    recorder = Recorder(model, blocks | intermediate_names())
    for h, w in meta["sizes"]:
        images = torch.from_numpy(parity_weights.image(meta["weight_seed"] + h + w, meta["batch"], h, w))
        low, high = model(images)
        pixels = high[0].flatten(1)
        got = {name: subsampled(name, value) for name, value in recorder.seen.items()}
        got |= {
            "y_enc": low[:, ::3],
            "y_dec": high[:, ::8, ::7, ::7],
            "y_dec_lastrow": high[:, ::8, -1, ::4],
            "y_dec_lastcol": high[:, ::8, ::4, -1],
            "y_dec_mean_std": torch.stack((pixels.mean(1), pixels.std(1, unbiased=False))),
            "pos_embed": vit_of(model).position_for(h // model.patch_size, w // model.patch_size)[0, :, ::24],
        }
        stored = {key.partition("/")[2] for key in arrays.files if key.startswith(f"{h}x{w}/")}
        assert stored == set(got)
        for name in sorted(stored):
            atol = 1e-6 if name == "pos_embed" else meta["atol"]
            assert_near(f"{variant} {h}x{w}/{name}", got[name], arrays[f"{h}x{w}/{name}"], atol)
