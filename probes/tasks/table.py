"""Every probe there is. A new one is a file in this folder and one line here."""

from __future__ import annotations

from probes.task import Task
from probes.tasks.depth import Depth
from probes.tasks.efficiency import Efficiency
from probes.tasks.homography import HomographyMatching
from probes.tasks.motion import Motion
from probes.tasks.segmentation import AttentionSegmentation, KnnSegmentation, LinearSegmentation
from probes.tasks.tracking import Tracking
from probes.tasks.vos import LinearVos
from probes.tasks.vos_knn import KnnVos

TASKS: tuple[type[Task], ...] = (
    LinearVos,
    KnnVos,
    AttentionSegmentation,
    LinearSegmentation,
    KnnSegmentation,
    Depth,
    HomographyMatching,
    Motion,
    Efficiency,
    Tracking,
)
