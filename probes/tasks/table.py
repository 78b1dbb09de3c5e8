"""Every probe there is. A new one is a file in this folder and one line here."""

from __future__ import annotations

from probes.task import Task
from probes.tasks.depth import Depth
from probes.tasks.homography import HomographyMatching
from probes.tasks.tracking import Tracking
from probes.tasks.vos import LinearVos

TASKS: tuple[type[Task], ...] = (LinearVos, Depth, HomographyMatching, Tracking)
