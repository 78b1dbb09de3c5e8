"""The linear probe against the plain formulation with autograd, and on problems with a known answer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from probes.heads.linear import LinearProbe, fit, upsampling_matrix
from probes.sources.features import Features


def _random(seed: int, *, decoder: bool, dtype: torch.dtype = torch.float64) -> tuple[Features, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    low = torch.randn(1, 7, 3, 5, generator=rng, dtype=dtype)
    high = torch.randn(1, 4, 24, 40, generator=rng, dtype=dtype) if decoder else None
    size = (24, 40) if decoder else (3, 5)
    return Features(low, high), torch.randint(0, 3, size, generator=rng)


def _concatenated(features: Features) -> torch.Tensor:
    """The paper's map [1, D + K, h, w], tokens upsampled to pixels."""
    if features.high_bkhw is None:
        return features.low_bdgf
    size = features.high_bkhw.shape[-2:]
    up = F.interpolate(features.low_bdgf, size=size, mode="bilinear", align_corners=False)
    return torch.cat([up, features.high_bkhw], dim=1)


def _plain_fit(features: Features, labels: torch.Tensor, classes: int, iterations: int) -> torch.nn.Conv2d:
    """Section B.1 as written: a layer over the concatenated map, autograd, torch's Adam."""
    x = _concatenated(features)
    layer = torch.nn.Conv2d(x.shape[1], classes, 1).to(x.dtype)
    assert layer.bias is not None
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    adam = torch.optim.Adam(layer.parameters(), lr=5e-3, weight_decay=5e-4)
    for _ in range(iterations):
        adam.zero_grad()
        F.cross_entropy(layer(x), labels[None]).backward()
        adam.step()
    return layer


@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_plain_formulation(decoder: bool, seed: int) -> None:
    features, labels = _random(seed, decoder=decoder)
    probe = fit(features, labels, 3, iterations=120)
    layer = _plain_fit(features, labels, 3, iterations=120)
    assert layer.bias is not None
    weight = layer.weight.detach()[:, :, 0, 0]
    assert weight.abs().max() > 0.05, "the comparison must not be between two zeros"
    torch.testing.assert_close(probe.weight_low_cd, weight[:, :7], rtol=0, atol=1e-9)
    torch.testing.assert_close(probe.bias_c, layer.bias.detach(), rtol=0, atol=1e-9)
    if decoder:
        assert probe.weight_high_ck is not None
        torch.testing.assert_close(probe.weight_high_ck, weight[:, 7:], rtol=0, atol=1e-9)
    other, _ = _random(seed + 50, decoder=decoder)
    torch.testing.assert_close(probe.logits(other), layer(_concatenated(other)).detach(), rtol=0, atol=1e-9)


def test_float32_stays_close_to_float64() -> None:
    features, labels = _random(3, decoder=True, dtype=torch.float32)
    assert features.high_bkhw is not None
    double = Features(features.low_bdgf.double(), features.high_bkhw.double())
    single, exact = fit(features, labels, 3).logits(features), fit(double, labels, 3).logits(double)
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("size_out", "size_in"), [(24, 3), (40, 5), (28, 2), (9, 9), (7, 3)])
def test_upsampling_matrix_is_bilinear(size_out: int, size_in: int) -> None:
    x = torch.randn(1, 2, size_in, size_in, dtype=torch.float64)
    matrix = upsampling_matrix(size_out, size_in, x)
    expected = F.interpolate(x, size=(size_out, size_out), mode="bilinear", align_corners=False)
    torch.testing.assert_close(matrix @ x @ matrix.T, expected, rtol=0, atol=1e-12)


def test_separable_pixels_are_learnt_and_carry_over() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.zeros(2, 32, 48, dtype=torch.long)
    labels[0, 5:20, 8:30], labels[0, 22:30, 33:44] = 1, 2
    labels[1, 9:24, 12:34], labels[1, 1:8, 2:20] = 1, 2
    signs = F.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    high = signs + 0.05 * torch.randn(2, 3, 32, 48, generator=rng)
    low = torch.randn(2, 6, 2, 3, generator=rng)
    features = Features(low, high)
    probe = fit(features.picture(0), labels[0], 3)
    predicted = probe.predict(features.picture(1), 32, 48)[0]
    assert predicted.dtype == torch.uint8
    assert (predicted.long() == labels[1]).float().mean() > 0.99


def test_it_is_deterministic_and_starts_from_zero() -> None:
    features, labels = _random(5, decoder=True, dtype=torch.float32)
    once, twice = fit(features, labels, 3, iterations=30), fit(features, labels, 3, iterations=30)
    assert torch.equal(once.weight_low_cd, twice.weight_low_cd)
    assert not fit(features, labels, 3, iterations=0).weight_low_cd.any()


def test_standardisation_is_undone_by_nothing_but_itself() -> None:
    """Rescaled and shifted channels give the same standardised probe, and the same logits."""
    features, labels = _random(7, decoder=True)
    assert features.high_bkhw is not None
    scaled = Features(3.0 * features.low_bdgf - 2.0, 0.1 * features.high_bkhw + 5.0)
    a, b = fit(features, labels, 3, standardise=True), fit(scaled, labels, 3, standardise=True)
    torch.testing.assert_close(a.logits(features), b.logits(scaled), rtol=0, atol=1e-8)
    plain = fit(features, labels, 3), fit(scaled, labels, 3)
    assert (plain[0].logits(features) - plain[1].logits(scaled)).abs().max() > 1e-2


def test_a_constant_channel_survives_standardisation() -> None:
    features, labels = _random(8, decoder=False)
    features.low_bdgf[:, 2] = 4.0
    assert torch.isfinite(fit(features, labels, 3, standardise=True).logits(features)).all()


def test_features_that_are_not_finite_are_refused() -> None:
    features, _ = _random(9, decoder=False)
    features.low_bdgf[0, 0, 0, 0] = float("nan")
    probe = LinearProbe(torch.ones(2, 7, dtype=torch.float64), None, torch.zeros(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="not finite"):
        probe.predict(features, 24, 40)
