"""Runs networks exported by ``icconv_mm.apis.export``: numpy, OpenCV, and ONNX Runtime or OpenVINO; no torch.

Example::

    from icconv_mm_runtime import Session

    for prediction in Session('network.onnx').predict('images/'):
        print(prediction.path, prediction.tasks[''])
"""

from icconv_mm_runtime.benchmark import Benchmark
from icconv_mm_runtime.errors import RuntimeInputError
from icconv_mm_runtime.session import Prediction, Session

__all__ = ['Benchmark', 'Prediction', 'RuntimeInputError', 'Session']
__version__ = '0.1.0'
