"""Every report says how much patch lattice its dense sources show."""

from __future__ import annotations

from pathlib import Path

import torch
from click.testing import CliRunner
from PIL import Image

from probes.cli import commands
from probes.report import records
from probes.sources.features import features_of
from probes.sources.flowfeat import Checkpoint
from probes.sources.lattice import LINE, PICTURES, LatticeMeter
from probes.sources.table import create_sources
from tests.probes.toy_task import TokenSize
from trainer import lattice_share


def test_it_is_the_share_of_the_first_pictures_for_dense_sources_alone(tiny_checkpoint: Checkpoint) -> None:
    meter = LatticeMeter()
    sources = meter.watched(create_sources(["encoder", "random_decoder", "flowfeat"], tiny_checkpoint))
    images = torch.randint(
        0, 256, (PICTURES + 4, 32, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    dense: dict[str, list[torch.Tensor]] = {}
    for start in (0, 6, 12, 18):
        for source, features in features_of(sources, images[start : start + 6]):
            if features.high_bkhw is not None:
                dense.setdefault(source.name, []).append(features.high_bkhw)
    lines = meter.lines({})
    assert list(lines) == [LINE + "encoder + random decoder", LINE + "encoder + FlowFeat"]
    for text, name in zip(lines.values(), ("random_decoder", "flowfeat"), strict=True):
        share = lattice_share(torch.cat(dense[name])[:PICTURES], patch=8)
        assert text == f"{100 * share:.1f} % of the variance within patches ({PICTURES} pictures)"


def test_a_report_holds_it_also_where_everything_was_measured_before(checkpoint: Path, tmp_path: Path) -> None:
    Image.effect_noise((48, 48), 80).convert("RGB").save(tmp_path / "a.png")
    given = [
        "tokens",
        "--pictures",
        tmp_path,
        "--model",
        checkpoint,
        "--out",
        tmp_path / "out",
        "--sources",
        "encoder,flowfeat",
    ]
    for _ in range(2):
        result = CliRunner().invoke(commands((TokenSize,)), [str(one) for one in given])
        assert result.exit_code == 0, result.output
        run = records.read(tmp_path / "out").last_run("tokens")
        assert run is not None
        about = run.about
        text = str(about[LINE + "encoder + FlowFeat"])
        assert 0 < float(text.split()[0]) < 100 and text.endswith("(1 pictures)")
        assert text in (tmp_path / "out/index.html").read_text()
        assert LINE + "encoder alone" not in about
    assert "already measured" in result.stderr
