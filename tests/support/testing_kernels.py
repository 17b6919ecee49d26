"""The kernels of GPUs on the CPU (``csrc/testing``), which a library has that was built for tests."""

from icconv_mm.ops.dispatch.backend import missing_library
from icconv_mm.utils.torch_private import has_kernel


def require_testing_kernels() -> None:
    """Raise RuntimeError if there is a compiled library and it has none of them."""
    if missing_library() is None and not has_kernel('icconv_mm::inception_conv2d_by', 'CPU'):
        raise RuntimeError(
            'the compiled library has no kernels for tests: build it with `make setup`, or with '
            '`ICCONV_MM_EXT_TESTS=1 python setup.py build_ext --inplace`'
        )
