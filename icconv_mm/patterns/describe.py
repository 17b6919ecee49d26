"""Patterns for the eye: a table, and an image with the effective receptive field."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from icconv_mm.errors import naming
from icconv_mm.patterns.pattern import DilationPattern
from icconv_mm.patterns.receptive_field import ReceptiveField
from icconv_mm.utils.tables import table


def mean_dilation(pattern: DilationPattern) -> tuple[float, float]:
    """Mean dilation (height, width) over the output channels."""
    total = pattern.out_channels
    return sum(n * h for n, h, _ in pattern) / total, sum(n * w for n, _, w in pattern) / total


def pattern_table(patterns: Sequence[DilationPattern], title: str, names: Sequence[str] | None = None) -> Table:
    """One row per layer: channels (or groups), runs, mean and largest dilation, share of undilated channels.

    ``names`` are those of the layers; without them they are numbered.
    """
    rows = [('layer', 'channels', 'runs', 'mean d_h', 'mean d_w', 'max', 'undilated')]
    for name, pattern in zip(names or map(str, range(len(patterns))), patterns):
        means = [f'{mean:.2f}' for mean in mean_dilation(pattern)]
        undilated = pattern.histogram().get((1, 1), 0) / pattern.out_channels
        counts = pattern.out_channels, len(pattern), *means, pattern.max_dilation
        rows.append((name, *map(str, counts), f'{undilated:.0%}'))
    return table(title, rows, {'layer'})


def draw_patterns(
    patterns: Sequence[DilationPattern],
    path: str | Path,
    title: str,
    fields: Mapping[str, ReceptiveField] | None = None,
) -> None:
    """Draws the dilation histogram of every layer and, if given, effective receptive fields on one scale.

    Args:
        patterns: The pattern of each layer.
        path: The image to write, in a format that matplotlib knows by its suffix.
        title: Above it.
        fields: Name of a network -> its field, e.g. of the dense network and of this one.
    """
    from matplotlib.figure import Figure  # takes a moment, and most who read patterns draw none

    fields = dict(fields or {})
    figure = Figure(figsize=(7 + 4 * len(fields), 5), layout='constrained')
    axes = figure.subplots(1, 1 + len(fields), width_ratios=[1.5] + [1] * len(fields), squeeze=False)[0]
    figure.suptitle(title)
    _draw_histograms(figure, axes[0], patterns)
    _draw_fields(figure, axes[1:], fields)
    with naming(str(path), OSError, ValueError):  # the latter: a suffix that matplotlib does not know
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)


def _draw_histograms(figure, axis, patterns: Sequence[DilationPattern]) -> None:
    from matplotlib.colors import PowerNorm

    dilations = sorted({dilation for pattern in patterns for dilation in pattern.histogram()})
    shares = [[p.histogram().get(d, 0) / p.out_channels for d in dilations] for p in patterns]
    image = axis.imshow(shares, aspect='auto', cmap='Blues', norm=PowerNorm(0.5, 0, 1))
    axis.set_xticks(range(len(dilations)), [f'{h},{w}' for h, w in dilations], rotation=90, fontsize='x-small')
    axis.set(xlabel='dilation (height, width)', ylabel='layer, in forward order', title='share of the output channels')
    figure.colorbar(image, ax=axis)


def _draw_fields(figure, axes, fields: Mapping[str, ReceptiveField]) -> None:
    from matplotlib.colors import LogNorm

    if not fields:
        return
    peak = max(field.share.max().item() for field in fields.values())
    scale = LogNorm(peak * 1e-4, peak)
    for axis, (name, field) in zip(axes, fields.items()):
        image = axis.imshow(field.share.clamp(min=peak * 1e-4), cmap='magma', norm=scale)
        axis.set_title(f'{name}\n{field.extent_h:.0f} x {field.extent_w:.0f} pixels (rms)')
        axis.set(xlabel='input column', ylabel='input row')
    figure.colorbar(image, ax=list(axes), label='share of the squared gradient')
