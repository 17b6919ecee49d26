"""Arrays: what an image comes as, and the predictions of one task for it by name."""

from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]  # the names are those of icconv_mm_runtime.results


def is_array(image: Any) -> bool:
    """Returns whether an image comes as pixels: an array of numpy, an image of PIL, a tensor of torch."""
    return isinstance(image, np.ndarray) or type(image).__module__.split('.')[0] in ('PIL', 'torch')
