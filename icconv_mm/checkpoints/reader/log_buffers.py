"""The log buffers that mmengine writes into checkpoints: its own class or, without it, one that holds nothing."""

from typing import Any

from icconv_mm import versions

if versions.is_installed('mmengine'):
    from mmengine.logging import HistoryBuffer as HistoryBuffer  # for other modules
else:

    class HistoryBuffer:
        """Stands for mmengine's: a log that nobody reads here, and is left behind."""

        min = max = current = mean = None

        def __init__(self, **_: Any) -> None: ...
