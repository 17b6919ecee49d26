"""Opens an exported file: returns its metadata and a function that runs it."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from icconv_mm_runtime import limits
from icconv_mm_runtime.errors import RuntimeInputError, refusing
from icconv_mm_runtime.finite import ADVICE, first_not_finite, stored_weights
from icconv_mm_runtime.metadata import KEY, parsed

RunFunction = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def open_file(file: str | Path, threads: int | None = None, device: str | None = None) -> tuple[dict, RunFunction]:
    """Returns a file's metadata and a function that runs it.

    ``.onnx`` runs in ONNX Runtime, else in OpenVINO; ``.ort`` in ONNX Runtime alone, ``.xml`` in OpenVINO alone. The
    devices are those of :class:`icconv_mm_runtime.Session`.
    """
    if not isinstance(file, (str, Path)):
        raise RuntimeInputError(f'file: expected the name of a file, got {type(file).__name__}')
    file = Path(file)
    is_count = isinstance(threads, int) and not isinstance(threads, bool) and 1 <= threads <= limits.MAX_THREADS
    if threads is not None and not is_count:
        raise RuntimeInputError(f'threads must be a whole number from 1 to {limits.MAX_THREADS}, got {threads!r}')
    if device is not None and not isinstance(device, str):
        raise RuntimeInputError(f'device must be a name such as cpu or cuda:0, got {device!r:.60}')
    device = device and device.lower()
    with refusing(str(file)):
        if not file.is_file():
            raise RuntimeInputError(f'{file}: no such file')
        openers = {'.onnx': [_onnxruntime, _openvino], '.ort': [_onnxruntime], '.xml': [_openvino]}.get(file.suffix)
        if openers is None:
            raise RuntimeInputError(f'{file}: expected a file that ends in .onnx, .ort or .xml')
        missing: list[str] = []
        refusals: list[_NoDevice] = []
        for opener in openers:
            try:
                return opener(file, threads, device)
            except ImportError as error:
                missing.append(str(error.name).split('.')[0])
            except _NoDevice as error:
                refusals.append(error)
        if refusals:
            reason = ''.join(f' ({error})' for error in refusals if str(error))
            names = ', '.join(name for error in refusals for name in error.known)
            raise RuntimeInputError(f'{file}: there is no device {device!r}{reason}; there are: {names}')
        raise RuntimeInputError(f'{file}: needs {" or ".join(missing)}: pip install {missing[0]}')


class _NoDevice(RuntimeInputError):
    """An engine does not have a device, or cannot use it for the reason that is the message; ``known`` are others."""

    def __init__(self, names: Iterable[str], reason: str = '') -> None:
        super().__init__(reason)
        self.known = sorted(names, key=lambda name: (name != 'cpu', name))


def _onnxruntime(file: Path, threads: int | None, device: str | None) -> tuple[dict[str, Any], RunFunction]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    available = onnxruntime.get_available_providers()
    providers = available if device is None else _providers(device, available)
    with refusing(f'{file}: cannot be read'):
        try:  # enable_fallback tries other providers than the given ones
            fallback = {'enable_fallback': device is None}
            session = onnxruntime.InferenceSession(str(file), options, providers=providers, **fallback)
        except Exception as error:
            if device not in (None, 'cpu'):
                _onnxruntime(file, threads, 'cpu')  # raises if the file is at fault
                raise _NoDevice({*_names(available)} - {device}, ' '.join(str(error).split())[:200]) from error
            raise
    if device is not None and providers[0][0] not in session.get_providers():  # of which ONNX Runtime only warns
        raise _NoDevice({*_names(available)} - {'cuda', 'tensorrt', device}, 'its libraries do not load')
    metadata = parsed(session.get_modelmeta().custom_metadata_map.get(KEY), str(file))
    _require_finite(file)
    names = [output.name for output in session.get_outputs()]
    return metadata, lambda inputs: dict(zip(names, session.run(None, dict(inputs))))


def _names(providers: Iterable[str]) -> dict[str, str]:
    """Returns ONNX Runtime's providers by the names of devices; OpenVINO runs files itself, Azure's elsewhere."""
    names = {provider.removesuffix('ExecutionProvider').lower(): provider for provider in providers}
    return {name: provider for name, provider in names.items() if name not in ('azure', 'openvino')}


def _providers(device: str, available: Sequence[str]) -> list[tuple[str, dict]]:
    """Returns the provider of a device, and behind it those of the operators that it does not have."""
    names, (name, colon, number) = _names(available), device.partition(':')
    if name not in names or (colon and (name == 'cpu' or not number.isdecimal())):
        raise _NoDevice(names)
    behind = {'cpu': [], 'tensorrt': ['cuda', 'cpu']}.get(name, ['cpu'])
    options = {'device_id': number} if number else {}
    return [
        (names[name], options),
        *((names[option], options if option == 'cuda' else {}) for option in behind if option in names),
    ]


def _openvino(file: Path, threads: int | None, device: str | None) -> tuple[dict[str, Any], RunFunction]:
    import openvino

    # float32 also where the CPU is faster with less: the results equal those checked at export
    options = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': 'f32'}
    core = _core(openvino.Core)
    # a device without a number is the first of its kind, as for OpenVINO itself
    devices = {f'openvino:{name}'.lower(): name for name in core.available_devices}
    kinds = {name.split('.')[0]: target.split('.')[0] for name, target in devices.items()}
    target = {**kinds, **devices, 'cpu': 'CPU', 'openvino': 'CPU'}.get('cpu' if device is None else device)
    if target is None:
        raise _NoDevice(devices)
    if threads and target == 'CPU':
        options['INFERENCE_NUM_THREADS'] = threads
    with refusing(f'{file}: cannot be read'):
        model = core.read_model(str(file))
        path = [KEY] if file.suffix == '.xml' else ['framework', KEY]
        text = model.get_rt_info(path).astype(str) if model.has_rt_info(path) else None
    metadata = parsed(text, str(file))
    if file.suffix == '.xml':
        _check_weights(file.with_suffix('.bin'), metadata.get('weights_sha256'))
    _require_finite(file)
    with refusing(f'{file}: cannot be read'):
        compiled = core.compile_model(model, target, options)
    names = [output.get_any_name() for output in compiled.outputs]

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, compiled(dict(inputs)).to_tuple()))

    return metadata, run


@cache
def _core(kind: Callable[[], Any]) -> Any:
    """Returns the process's one core of OpenVINO.

    OpenVINO 2026.4.1 gives a thread a signal stack for each core with a CPU. If cores end in the order in which they
    began, the thread keeps one that is freed, and ends at the next signal that Python handles.
    """
    return kind()


def _require_finite(file: Path) -> None:
    with refusing(f'{file}: its weights cannot be read'):
        name = first_not_finite(stored_weights(file))
    if name is not None:
        raise RuntimeInputError(f'{file}: {name} {ADVICE}')


def _check_weights(file: Path, name: str | None) -> None:
    """Raises RuntimeInputError if the ``.bin`` is not the one that the ``.xml`` names; former versions name none."""
    if name is None:
        return
    digest = hashlib.sha256()
    with open(file, 'rb') as content:
        while block := content.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != name:
        raise RuntimeInputError(f'{file}: is of another export than the .xml beside it; export both again')
