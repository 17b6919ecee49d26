"""Every public class and function of operators, layers, backbones, necks and models has an example, and it runs."""

import doctest
from types import ModuleType

import pytest
import torch
from torch import nn

from icconv_mm import backbones, layers, models, necks, ops

PACKAGES = ops, layers, backbones, necks, models
PUBLIC = [(package, name) for package in PACKAGES for name in package.__all__ if not name.endswith('Error')]


@pytest.mark.parametrize(('package', 'name'), PUBLIC, ids=[f'{package.__name__}.{name}' for package, name in PUBLIC])
def test_the_example_runs(package: ModuleType, name: str):
    globs = {'torch': torch, 'nn': nn, **{member: getattr(package, member) for member in package.__all__}}
    (test,) = doctest.DocTestFinder(recurse=False, exclude_empty=False).find(getattr(package, name), name, globs=globs)
    assert test.examples and test.examples[-1].want, f'{name}: the docstring has no example that shows a result'
    report: list[str] = []
    assert not doctest.DocTestRunner().run(test, out=report.append).failed, ''.join(report)
