"""Finding people in the maps of bottom-up pose."""

from collections.abc import Iterator
from functools import partial

from icconv_tools.gpu_acceptance.bench import Bench, Measurement
from icconv_tools.gpu_acceptance.measurements.necks import suite_figures


def measurements(bench: Bench) -> Iterator[Measurement]:
    yield Measurement('pose/decoding', partial(suite_figures, 'pose'), 60, ('mmengine', 'mmcv', 'mmpose'))
