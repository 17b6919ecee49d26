"""Why a test may skip. Any other reason fails it: a check that nobody runs is none."""

import re

import torch

EXPORTS = tuple(map(int, torch.__version__.split('+')[0].split('.')[:2])) >= (2, 6)  # whether this torch has them

REASONS = {
    'a GPU': r'CUDA',
    'images and patterns, which are of others': r'(images|published patterns) not found in',
    'a library that is not installed': r"could not import '|mim \(openmim\) is not installed",
    'another Python, torch or OpenCV': r'tomllib comes with|this (torch|OpenCV) |came with torch|a setting of torch',
    'a processor with other instructions': r'this processor has no',
    'a browser, or what runs in it': r'no Chromium is installed|needs the npm package onnxruntime-web',
    'a compiler': r'no C\+\+ compiler|there is no nvcc|not compiled|no compiled operators|does not load with torch',
}


def allowed(reason: str) -> bool:
    """Whether ``reason``, as pytest reports it, is one of those."""
    return any(re.search(pattern, reason) for pattern in REASONS.values())
