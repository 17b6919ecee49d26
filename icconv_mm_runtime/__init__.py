"""Runs networks exported by ``icconv_mm.apis.export``: numpy, OpenCV, and ONNX Runtime or OpenVINO; no torch.

Example::

    from icconv_mm_runtime import Session

    for result in Session('network.onnx').predict('images/'):
        print(result.path, result.boxes, result.names)
"""

TYPE_CHECKING = False  # typing's, without its import: this file comes before a command hears Ctrl-C
if TYPE_CHECKING:
    from icconv_mm_runtime.benchmark import Benchmark
    from icconv_mm_runtime.errors import RuntimeInputError
    from icconv_mm_runtime.results import Result
    from icconv_mm_runtime.results import Result as Prediction
    from icconv_mm_runtime.session import Session

__all__ = ['Benchmark', 'Prediction', 'Result', 'RuntimeInputError', 'Session']
__version__ = '0.1.0'

_MODULES = {
    'Benchmark': 'benchmark',
    'Prediction': 'results',  # the former name of Result
    'Result': 'results',
    'RuntimeInputError': 'errors',
    'Session': 'session',
}


def __getattr__(name: str) -> object:
    """Imports a class on its first use: files, limits and thresholds are used where OpenCV is not installed."""
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module

    return getattr(import_module(f'{__name__}.{_MODULES[name]}'), name)
