"""Metadata of an exported file, and images for it."""

import numpy as np

TASK = {'name': '', 'kind': 'classification', 'outputs': ['scores'], 'classes': ['ball', 'box'], 'palette': None}
RULE = {'divisor': 1, 'pads': False, 'sized': False, 'fixed': None}


def described(**changes):
    return {'schema': 1, 'steps': [], 'batch': RULE, 'tasks': [TASK], **changes}


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
