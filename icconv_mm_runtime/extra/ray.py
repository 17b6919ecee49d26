"""Predicts many images on many machines, by Ray Data."""

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from pyarrow import fs
from ray.data import ActorPoolStrategy, Dataset

from icconv_mm_runtime import limits
from icconv_mm_runtime.coco import encode_rle
from icconv_mm_runtime.errors import RuntimeInputError, refusing
from icconv_mm_runtime.files import write_bytes
from icconv_mm_runtime.images import IMAGE_SUFFIXES, check_bytes
from icconv_mm_runtime.results import Arrays, Result
from icconv_mm_runtime.session import Session, check_count

_BOX = pa.struct([(name, pa.float32()) for name in ('x1', 'y1', 'x2', 'y2')])
_RLE = pa.struct([('size', pa.list_(pa.int32())), ('counts', pa.string())])
_KEYPOINT = pa.struct([(name, pa.float32()) for name in ('x', 'y', 'score')])
# One for all files: types that are guessed change with the content, and readers refuse a folder with both.
ROW_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ('path', 'task', 'error')),
        *((name, pa.int32()) for name in ('height', 'width')),
        ('boxes', pa.list_(_BOX)),
        ('scores', pa.list_(pa.float32())),
        ('labels', pa.list_(pa.int64())),
        ('masks', pa.list_(_RLE)),
        ('keypoints', pa.list_(pa.list_(_KEYPOINT))),
    ]
)
_ROWS = 64  # images in a block: what is computed anew if a machine is lost
_WORKERS = 1 << 20  # at most
_BLOCKS = 10_000  # at most, for the sake of Ray's scheduler


def predict(
    images: Dataset | str | Path,
    file: str | Path,
    *,
    batch_size: int = 1,
    concurrency: int | tuple[int, int] | None = None,
    num_cpus: int = 1,
    num_gpus: float = 0,
    device: str | None = None,
) -> Dataset:
    """Returns a dataset with a row for each task of each image.

    Columns are those of :data:`ROW_SCHEMA`, null where there is nothing.

    An image that cannot be used has one row, with the error. Masks are COCO's RLE; a segmentation map is a mask for
    each class in it. The order of the images is not kept.

    Args:
        images: A folder with all its subfolders or a file: a path or a URI that pyarrow opens, such as ``s3://``. Or a
            dataset with the column ``path`` and, unless workers read the paths, ``bytes``: as
            ``ray.data.read_binary_files(..., include_paths=True)`` gives them.
        file: The exported file. Workers get its content: it need not be on their machines.
        batch_size: Images per run of the network.
        concurrency: Workers at most, or at least and at most; by default as many as the cluster has room for.
        num_cpus: Processors and threads of a worker.
        num_gpus: GPUs of a worker.
        device: As for :class:`Session`; by default 'cuda' with GPUs, else 'cpu'.

    Raises:
        RuntimeInputError: The file, the folder or an argument cannot be used.

    Example::

        from icconv_mm_runtime.ray import predict

        predict('s3://bucket/images', 'network.onnx').write_parquet('s3://bucket/found')
    """
    # A pool that may shrink to one worker survives the loss of a machine; one of a fixed size waits for it.
    least, most = concurrency if isinstance(concurrency, tuple) else (1, concurrency)
    check_count('batch_size', batch_size, limits.MAX_BATCH)
    check_count('num_cpus', num_cpus, limits.MAX_THREADS)
    if most is not None:
        check_count('concurrency', most, _WORKERS)
    check_count('concurrency', least, most or _WORKERS)
    with refusing(str(file)):
        Session(file, threads=1, device='cpu')  # raises here, not in a worker that Ray starts again and again
    filesystem = None
    if not isinstance(images, Dataset):
        filesystem, paths = _listed(str(images))
        size = max(_ROWS, math.ceil(len(paths) / _BLOCKS))
        parts = [paths[start : start + size] for start in range(0, len(paths), size)]
        images = ray.data.from_arrow([pa.table({'path': part}) for part in parts])
    files = [Path(file), *([Path(file).with_suffix('.bin')] if Path(file).suffix == '.xml' else [])]
    content = ray.put({file.name: file.read_bytes() for file in files})
    device = device or ('cuda' if num_gpus else 'cpu')
    return images.map_batches(
        _Worker,
        fn_constructor_args=(content, str(file), filesystem, batch_size, num_cpus, device),
        batch_size=max(_ROWS, batch_size),
        batch_format='pyarrow',
        compute=ActorPoolStrategy(min_size=least, max_size=most),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )


def _listed(uri: str) -> tuple[fs.FileSystem, list[str]]:
    """Returns a file system, and the paths in it of the images below a folder, or of one file."""
    with refusing(uri):
        filesystem, root = fs.FileSystem.from_uri(uri if '://' in uri else os.path.abspath(uri))
        info = filesystem.get_file_info(root)
        if info.type == fs.FileType.File:
            return filesystem, [root]
        if info.type == fs.FileType.NotFound:
            raise RuntimeInputError(f'{uri}: no such file or folder')
        infos = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
        paths = [info.path for info in infos if info.path.lower().endswith(IMAGE_SUFFIXES)]
    if not paths:
        raise RuntimeInputError(f'{uri}: no image ({", ".join(IMAGE_SUFFIXES)}) in this folder')
    return filesystem, sorted(paths)


class _Worker:
    """An actor: maps a table of images to a table of predictions."""

    def __init__(
        self,
        content: ray.ObjectRef,
        name: str,
        filesystem: fs.FileSystem | None,
        batch_size: int,
        threads: int,
        device: str,
    ):
        with tempfile.TemporaryDirectory() as folder:
            for part, data in ray.get(content).items():
                write_bytes(Path(folder, part), data)
            self.session = Session(Path(folder, Path(name).name), threads, device)
        self.session.file = name  # for messages
        self.filesystem, self.batch_size = filesystem or fs.LocalFileSystem(), batch_size

    def __call__(self, table: pa.Table) -> pa.Table:
        if 'path' not in table.column_names:
            raise RuntimeInputError(f'images: the dataset has no column path, only {", ".join(table.column_names)}')
        paths, images, rows = table['path'].to_pylist(), [], []
        contents = table['bytes'].to_pylist() if 'bytes' in table.column_names else [None] * len(paths)
        for path, content in zip(paths, contents):
            try:
                images.append((path, self._content(path, content)))
            except RuntimeInputError as error:
                rows.append({'path': None if path is None else str(path), 'error': str(error)})
        for path, result in self.session.try_predict(images, self.batch_size):
            try:
                if isinstance(result, RuntimeInputError):
                    raise result
                with refusing(path):
                    rows += self._rows(result)
            except RuntimeInputError as error:
                rows.append({'path': path, 'error': str(error)})
        return pa.Table.from_pylist(rows, ROW_SCHEMA)

    def _content(self, path: Any, content: Any) -> bytes:
        if not isinstance(path, str):
            raise RuntimeInputError(f'path: expected the name of an image, got {path!r:.60}')
        if content is not None:
            if not isinstance(content, bytes):
                raise RuntimeInputError(f'{path}: expected bytes, got {content!r:.60}')
            return content
        with refusing(path), self.filesystem.open_input_file(path) as file:
            check_bytes(file.size(), path)
            return file.read()

    def _rows(self, prediction: Result) -> list[dict]:
        height, width = prediction.image.shape[:2]
        about = {'path': prediction.path, 'height': height, 'width': width}
        return [{**about, 'task': name, **_columns(arrays)} for name, arrays in prediction.tasks.items()]


def _columns(arrays: Arrays) -> dict[str, Any]:
    """Returns the predictions of a task as values of the columns."""
    if 'seg_map' in arrays:
        labels = np.unique(arrays['seg_map'])
        return {'labels': labels.tolist(), 'masks': [encode_rle(arrays['seg_map'] == label) for label in labels]}
    columns: dict[str, Any] = {name: arrays[name].tolist() for name in ('scores', 'labels') if name in arrays}
    if 'boxes' in arrays:
        columns['boxes'] = _structs(_BOX, arrays['boxes'])
    elif 'keypoints' in arrays:
        points = np.concatenate([arrays['keypoints'], arrays['keypoint_scores'][..., None]], -1)
        columns['keypoints'] = [_structs(_KEYPOINT, person) for person in points]
    else:  # of a classifier
        columns['labels'] = list(range(len(arrays['scores'])))
    if 'masks' in arrays:
        columns['masks'] = [encode_rle(mask) for mask in arrays['masks']]
    return columns


def _structs(kind: pa.StructType, rows: np.ndarray) -> list[dict]:
    names = [field.name for field in kind]
    return [dict(zip(names, row)) for row in rows.tolist()]
