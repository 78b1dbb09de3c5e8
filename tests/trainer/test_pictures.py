"""Pictures of a training run: the normalisation undone, tables that line up."""

from __future__ import annotations

import numpy as np
import torch

from trainer.flowfeat import FlowFeat
from trainer.pictures import photo, table, training_table


def test_photo_undoes_the_normalisation() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    assert (photo(FlowFeat.normalise(torch.from_numpy(pixels)[None])[0]) == pixels).all()


def test_tables_line_up() -> None:
    black = np.zeros((4, 5, 3), np.uint8)
    sheet = table([[black, black], [black, black]])
    assert sheet.shape == (10, 12, 3) and (sheet[:, 5:7] == 255).all() and (sheet[4:6] == 255).all()
    images = torch.zeros(6, 3, 8, 8)
    rows = training_table(images, images, torch.zeros(6, 2, 8, 8), torch.ones(6, 2, 8, 8), torch.randn(6, 16, 8, 8))
    assert rows.shape == (4 * 10 - 2, 5 * 10 - 2, 3)
