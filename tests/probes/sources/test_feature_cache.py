"""Cached features are those that were made: same results, never another network's or picture's, bounded, safe among processes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from probes.sources.feature_cache import FeatureCache, with_cache
from probes.sources.features import Features, Source, features_of
from probes.sources.flowfeat import Checkpoint, FlowFeatEncoder, with_fresh_decoder
from probes.sources.table import create_sources
from trainer import FlowFeat

NAMES = ("encoder", "bilinear", "random_decoder", "flowfeat")


def _images(seed: int = 0, pictures: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (pictures, 32, 48, 3), dtype=torch.uint8, generator=generator)


def _all(sources: list[Source], images: torch.Tensor) -> dict[str, Features]:
    return {source.name: features for source, features in features_of(sources, images)}


def _equal(one: Features, other: Features) -> bool:
    maps = ((one.low_bdgf, other.low_bdgf), (one.high_bkhw, other.high_bkhw))
    return one.dense_alone == other.dense_alone and all(
        a is b is None or (a is not None and b is not None and torch.equal(a, b) and a.stride()[1:] == b.stride()[1:])
        for a, b in maps
    )


def test_features_are_the_same_with_it_and_the_network_rests(
    tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = create_sources(NAMES, tiny_checkpoint)
    cache = FeatureCache(tmp_path, 10**9)
    expected = _all(plain, _images())
    first = _all(with_cache(plain, cache), _images())
    assert (cache.hits, cache.misses) == (0, 8)
    monkeypatch.setattr(FlowFeat, "encode", lambda *_: pytest.fail("the encoder ran although all is kept"))
    again = _all(with_cache(plain, cache), _images())
    assert cache.hits == 8
    for name in NAMES:
        assert _equal(expected[name], first[name]) and _equal(expected[name], again[name]), name
    one = _all(with_cache(plain, cache), _images()[1:])
    assert torch.equal(one["encoder"].low_bdgf, expected["encoder"].low_bdgf[1:]), "pictures are kept one by one"


def test_nothing_stale_is_used(tiny: FlowFeat, tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, 10**9)
    sources = create_sources(NAMES, tiny_checkpoint)
    _all(with_cache(sources, cache), _images())
    other_picture = _images()
    other_picture[0, 0, 0, 0] ^= 1
    assert torch.equal(
        _all(with_cache(sources, cache), other_picture)["encoder"].low_bdgf,
        _all(sources, other_picture)["encoder"].low_bdgf,
    )
    changed = replace(tiny_checkpoint, encoder=FlowFeatEncoder(with_fresh_decoder(tiny, seed=99)))
    other = create_sources(["flowfeat"], changed)
    assert _equal(_all(with_cache(other, cache), _images())["flowfeat"], _all(other, _images())["flowfeat"])
    turned = _images().reshape(2, 48, 32, 3)
    before = cache.hits
    _all(with_cache(sources, cache), turned)
    assert cache.hits == before, "the same bytes in another shape are another picture"
    declared = [replace(source, spec="another declaration") for source in sources]
    _all(with_cache(declared, cache), _images())
    assert cache.hits == before


def test_weights_that_change_by_one_bit_are_other_weights(
    tiny: FlowFeat, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path, 10**9)
    model = with_fresh_decoder(tiny, seed=5)
    sources = create_sources(["flowfeat"], replace(tiny_checkpoint, encoder=FlowFeatEncoder(model)))
    _all(with_cache(sources, cache), _images())
    parameter = next(model.decoder.parameters())
    with torch.no_grad():
        parameter.view(torch.int32).view(-1)[0] ^= 1
    _all(with_cache(sources, cache), _images())
    assert cache.hits == 0


def test_a_damaged_file_is_made_anew(
    tiny_checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, sources = FeatureCache(tmp_path, 10**9), create_sources(["encoder"], tiny_checkpoint)
    expected = _all(with_cache(sources, cache), _images())
    files = sorted(tmp_path.glob("*/*.features"))
    assert len(files) == 2
    data = bytearray(files[0].read_bytes())
    data[-100] ^= 0x40
    files[0].write_bytes(bytes(data))
    files[1].write_bytes(files[1].read_bytes()[:10])
    for _ in range(2):
        assert _equal(_all(with_cache(sources, cache), _images())["encoder"], expected["encoder"])
    assert "is damaged" in caplog.text and cache.hits == 2


def test_it_holds_no_more_than_its_bound(
    tiny_checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sources = create_sources(["encoder"], tiny_checkpoint)
    cache = FeatureCache(tmp_path, 10**9)
    _all(with_cache(sources, cache), _images(pictures=1))
    (first,) = tmp_path.glob("*/*.features")
    size = first.stat().st_size
    small = FeatureCache(tmp_path, 3 * size)
    kept = with_cache(sources, small)
    for seed in (1, 2):
        _all(kept, _images(seed, 1))
    os.utime(first, (1, 1))  # made long ago ...
    _all(kept, _images(0, 1))  # ... and used just now
    _all(kept, _images(3, 1))
    assert first.is_file() and sum(path.stat().st_size for path in tmp_path.glob("*/*.features")) == 3 * size
    before = small.misses
    _all(kept, _images(1, 1))
    assert small.misses == before + 1, "the one used longest ago has gone"
    tiny_one = FeatureCache(tmp_path / "none", size - 1)
    for seed in (1, 2):
        _all(with_cache(sources, tiny_one), _images(seed, 1))
    assert not list((tmp_path / "none").glob("*/*")) and caplog.text.count("--feature-cache-gb is too small") == 1


def test_many_may_use_it_at_once(tmp_path: Path) -> None:
    """Writers of the same and of other keys, readers, and room that is made all the time: every answer is whole."""
    maps = {
        key: {"low": torch.full((1, 4, 16, 16), float(number))} for number, key in enumerate(("aa", "ab", "bb", "cc"))
    }

    def work(number: int) -> int:
        cache, answers = FeatureCache(tmp_path, 3 * 4500), 0
        for round_ in range(15):
            key = list(maps)[(number + round_) % len(maps)]
            found = cache.read(key)
            if found is not None:
                assert torch.equal(found["low"], maps[key]["low"])
                answers += 1
            cache.write(key, maps[key])
        return answers

    with ThreadPoolExecutor(4) as workers:
        assert sum(workers.map(work, range(4))) > 0
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*.features")) <= 3 * 4500
    assert not list(tmp_path.glob("*/.*"))
