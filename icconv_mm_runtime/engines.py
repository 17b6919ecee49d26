"""Opens an exported file: returns its metadata and a function that runs it."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from icconv_mm_runtime import limits
from icconv_mm_runtime.errors import RuntimeInputError, refusing
from icconv_mm_runtime.metadata import KEY, parsed

RunFunction = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def open_file(file: str | Path, threads: int | None = None) -> tuple[dict[str, Any], RunFunction]:
    """Returns a file's metadata and a function that runs it.

    ``.onnx`` runs in ONNX Runtime, else in OpenVINO; ``.ort`` in ONNX Runtime alone, ``.xml`` in OpenVINO alone.
    """
    if not isinstance(file, (str, Path)):
        raise RuntimeInputError(f'file: expected the name of a file, got {type(file).__name__}')
    file = Path(file)
    is_count = isinstance(threads, int) and not isinstance(threads, bool) and 1 <= threads <= limits.MAX_THREADS
    if threads is not None and not is_count:
        raise RuntimeInputError(f'threads must be a whole number from 1 to {limits.MAX_THREADS}, got {threads!r}')
    with refusing(str(file)):
        if not file.is_file():
            raise RuntimeInputError(f'{file}: no such file')
        openers = {'.onnx': [_onnxruntime, _openvino], '.ort': [_onnxruntime], '.xml': [_openvino]}.get(file.suffix)
        if openers is None:
            raise RuntimeInputError(f'{file}: expected a file that ends in .onnx, .ort or .xml')
        missing = []
        for opener in openers:
            try:
                return opener(file, threads)
            except ImportError as error:
                missing.append(str(error.name).split('.')[0])
        raise RuntimeInputError(f'{file}: needs {" or ".join(missing)}: pip install {missing[0]}')


def _onnxruntime(file: Path, threads: int | None) -> tuple[dict[str, Any], RunFunction]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    with refusing(f'{file}: cannot be read'):
        session = onnxruntime.InferenceSession(str(file), options, providers=onnxruntime.get_available_providers())
    metadata = parsed(session.get_modelmeta().custom_metadata_map.get(KEY), str(file))
    names = [output.name for output in session.get_outputs()]
    return metadata, lambda inputs: dict(zip(names, session.run(None, dict(inputs))))


def _openvino(file: Path, threads: int | None) -> tuple[dict[str, Any], RunFunction]:
    import openvino

    # float32 also where the CPU is faster with less: the results equal those checked at export
    options = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': 'f32'}
    if threads:
        options['INFERENCE_NUM_THREADS'] = threads
    core = openvino.Core()
    with refusing(f'{file}: cannot be read'):
        model = core.read_model(str(file))
        path = [KEY] if file.suffix == '.xml' else ['framework', KEY]
        text = model.get_rt_info(path).astype(str) if model.has_rt_info(path) else None
    metadata = parsed(text, str(file))
    if file.suffix == '.xml':
        _check_weights(file.with_suffix('.bin'), metadata.get('weights_sha256'))
    with refusing(f'{file}: cannot be read'):
        compiled = core.compile_model(model, 'CPU', options)
    names = [output.get_any_name() for output in compiled.outputs]

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, compiled(dict(inputs)).to_tuple()))

    return metadata, run


def _check_weights(file: Path, known: str | None) -> None:
    """Raises RuntimeInputError if the ``.bin`` is not the one that the ``.xml`` names; former versions name none."""
    if known is None:
        return
    digest = hashlib.sha256()
    with open(file, 'rb') as content:
        while block := content.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != known:
        raise RuntimeInputError(f'{file}: is of another export than the .xml beside it; export both again')
