"""The visualiser of recipes on data sets that mmseg has no name for."""

from collections.abc import Sequence

from mmengine.fileio import list_from_file
from mmseg.visualization import SegLocalVisualizer

from icconv_mm.registry import VISUALIZERS


@VISUALIZERS.register_module()
class SegVisualizer(SegLocalVisualizer):
    """mmseg's visualiser, which keeps the classes that it was given.

    ``MMSegInferencer`` asks for those of Cityscapes unless its caller names others, whatever config and checkpoint say.

    Args:
        name: Name of the visualiser, as mmengine keeps it.
        classes: Names of the classes, or the file that has them, a line each.
        palette: Colours (R, G, B) of the classes.
        kwargs: Arguments of ``SegLocalVisualizer``.
    """

    def __init__(
        self, name: str = 'visualizer', *args, classes: Sequence[str] | str, palette: Sequence[Sequence[int]], **kwargs
    ):
        super().__init__(name, *args, **kwargs)
        self._own = list_from_file(classes) if isinstance(classes, str) else list(classes), list(palette)
        self.set_dataset_meta()

    def set_dataset_meta(
        self,
        classes: Sequence[str] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        dataset_name: str | None = None,
    ) -> None:
        """As mmseg's; without arguments the classes that the visualiser was made with."""
        if hasattr(self, '_own') and not (classes or palette or dataset_name):
            classes, palette = self._own
        super().set_dataset_meta(classes, palette, dataset_name)
