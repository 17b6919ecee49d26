"""Opening an exported file: what it says of itself, and the function that runs it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from icconv_mm_runtime.errors import RuntimeInputError

KEY = 'icconv_mm'  # of the metadata
SCHEMA = 1  # of the metadata that this version reads
Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def open_file(file: str | Path, threads: int | None = None) -> tuple[dict[str, Any], Run]:
    """The metadata of a file, and what runs it: ONNX Runtime, or else OpenVINO, an ``.xml`` only the latter."""
    file = Path(file)
    if not file.is_file():
        raise RuntimeInputError(f'{file}: no such file')
    openers = {'.onnx': [_onnxruntime, _openvino], '.xml': [_openvino]}.get(file.suffix)
    if openers is None:
        raise RuntimeInputError(f'{file}: expected a file that ends in .onnx or .xml')
    missing = []
    for opener in openers:
        try:
            return opener(file, threads)
        except ImportError as error:
            missing.append(str(error.name).split('.')[0])
    raise RuntimeInputError(f'{file}: needs {" or ".join(missing)}: pip install {missing[0]}')


def _onnxruntime(file: Path, threads: int | None) -> tuple[dict[str, Any], Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=onnxruntime.get_available_providers())
    except Exception as error:  # the runtime has kinds of its own
        raise _unreadable(file, error) from None
    metadata = _read(file, session.get_modelmeta().custom_metadata_map.get(KEY))
    names = [output.name for output in session.get_outputs()]
    return metadata, lambda inputs: dict(zip(names, session.run(None, dict(inputs))))


def _openvino(file: Path, threads: int | None) -> tuple[dict[str, Any], Run]:
    import openvino

    # float32 also where the processor is faster with less: results are those of the check
    options = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': 'f32'}
    if threads:
        options['INFERENCE_NUM_THREADS'] = threads
    core = openvino.Core()
    try:
        model = core.read_model(str(file))
        path = [KEY] if file.suffix == '.xml' else ['framework', KEY]
        text = model.get_rt_info(path).astype(str) if model.has_rt_info(path) else None
        metadata = _read(file, text)
        compiled = core.compile_model(model, 'CPU', options)
    except RuntimeError as error:
        raise _unreadable(file, error) from None
    names = [output.get_any_name() for output in compiled.outputs]

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, compiled(dict(inputs)).to_tuple()))

    return metadata, run


def _unreadable(file: Path, error: Exception) -> RuntimeInputError:
    return RuntimeInputError(f'{file}: cannot be read ({" ".join(str(error).split())[:200]})')


def _read(file: Path, text: str | None) -> dict[str, Any]:
    if not text:
        raise RuntimeInputError(f'{file}: has no metadata of icconv_mm; write it with tools/export.py')
    metadata = json.loads(text)
    if metadata['schema'] > SCHEMA:
        raise RuntimeInputError(
            f'{file}: its metadata have schema {metadata["schema"]}, this icconv_mm_runtime reads up to {SCHEMA}: '
            'install a newer one'
        )
    return metadata
