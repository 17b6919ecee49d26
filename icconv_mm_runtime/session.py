"""Running a file on pictures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icconv_mm_runtime.engines import Run, open_file
from icconv_mm_runtime.errors import RuntimeInputError
from icconv_mm_runtime.pictures import Picture, batches, prepare, read_all
from icconv_mm_runtime.results import Found, decode


@dataclass(frozen=True)
class Prediction:
    """What a network found in a picture: its file, its pixels ``[H, W, 3]`` (uint8, BGR), and arrays of each task.

    The one task of a network for one is called ''. Boxes: ``boxes`` [n, 4], ``scores``, ``labels``, for some ``masks``
    [n, H, W]; label maps: ``label_map`` [H, W]; poses: ``keypoints`` [n, K, 2], ``keypoint_scores``, ``scores``;
    classes: ``scores`` [C].
    """

    path: str
    image: np.ndarray
    tasks: dict[str, Found]


class Session:
    """A file of ``icconv_mm.apis.export``, ready for pictures.

    Args:
        file: ``.onnx`` or ``.xml``.
        threads: Of the processor; None leaves it to the runtime.

    ``metadata`` is what the file says of itself, ``tasks`` the part about each task, by name; ``run`` takes arrays by
    input and gives arrays by output.

    Raises:
        RuntimeInputError: The file cannot be used; one sentence says why.

    Example::

        session = Session('network.onnx')
        boxes = next(session.predict('street.jpg')).tasks['']['boxes']
    """

    def __init__(self, file: str | Path, threads: int | None = None):
        self.metadata, self.run = open_file(file, threads)
        self.file = str(file)
        self.tasks = {task['name']: task for task in self.metadata['tasks']}

    @classmethod
    def of(cls, metadata: Mapping[str, Any], run: Run, file: str) -> 'Session':
        """A session of another runtime: ``run`` takes arrays by input and gives arrays by output."""
        session = cls.__new__(cls)
        session.metadata, session.run, session.file = metadata, run, file
        session.tasks = {task['name']: task for task in metadata['tasks']}
        return session

    def predict(self, pictures: Any, batch_size: int = 1) -> Iterator[Prediction]:
        """What the network finds, picture by picture.

        Args:
            pictures: A file, a folder, a video, an array ``[H, W, 3]`` (uint8, BGR), or several of them.
            batch_size: Pictures in a run of the network.

        Raises:
            RuntimeInputError: A picture cannot be used, or the network's outputs are not finite.
        """
        if batch_size < 1:
            raise RuntimeInputError(f'batch_size must be 1 or more, got {batch_size}')
        steps = self.metadata['steps']
        prepared = (prepare(Picture(path, image), steps) for path, image in read_all(pictures))
        for batch, arrays in batches(prepared, batch_size, self.metadata['batch']):
            outputs = self._outputs(arrays, batch[0].path)
            for row, picture in enumerate(batch):
                found = {}
                for name, task in self.tasks.items():
                    prefix = f'{name}.' if name else ''
                    own = {key: outputs[f'{prefix}{key}'] for key in task['outputs']}
                    found[name] = decode(task, own, row, picture)
                yield Prediction(picture.path, picture.image, found)

    def _outputs(self, arrays: Mapping[str, np.ndarray], path: str) -> dict[str, np.ndarray]:
        try:
            outputs = self.run(arrays)
        except Exception as error:  # the runtimes have kinds of their own
            sizes = ', '.join(f'{name} {list(array.shape)}' for name, array in arrays.items())
            said = ' '.join(str(error).split())[:200]
            raise RuntimeInputError(f'{self.file}: does not run on {path} ({sizes}): {said}') from error
        for name, values in outputs.items():
            if values.dtype.kind == 'f' and not np.isfinite(values.sum()) and not np.isfinite(values).all():
                raise RuntimeInputError(
                    f'{self.file}: the output {name} for {path} is not finite; has training diverged?'
                )
        return outputs
