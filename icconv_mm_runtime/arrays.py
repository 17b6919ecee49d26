"""The type of the predictions of one task for an image: arrays by name."""

import numpy as np

Arrays = dict[str, np.ndarray]  # the names are those of icconv_mm_runtime.results
