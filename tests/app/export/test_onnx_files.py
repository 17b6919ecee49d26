"""Graphs that runtimes with few types and operators can read."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from skips import EXPORTS
from torch import nn

pytest.importorskip('onnxscript')
if not EXPORTS:
    pytest.skip('this torch is too old for exports', allow_module_level=True)

from icconv_mm.app.export import run
from icconv_mm.app.export.networks import capture
from icconv_mm.app.export.onnx_files import to_onnx
from icconv_mm.app.export.operators import adaptive_mean, best
from icconv_mm.errors import ArgumentError


class Pooled(nn.Module):
    """What depends on sizes: windows of a pooling, a map that is resized, rows of a ranking and their columns."""

    def forward(self, images, size):
        (x,) = images
        pooled = adaptive_mean(x.float(), 3)
        _, places = best(x.flatten(1).float(), 40)
        columns = places % 5  # as classes of a detector
        return nn.functional.interpolate(pooled, x.shape[-2:]) * size[:, :1, None, None], places // 5, columns


def graph_of(free):
    count = 2 if 0 in free else 1
    example = [torch.zeros(count, 3, 48, 80)], torch.ones(count, 4)
    return to_onnx(capture(Pooled(), example, free), ['image', 'size'], ['maps', 'rows', 'columns'])


def test_all_sizes_of_a_fixed_batch_are_constants():
    assert 'Shape' in {node.op_type for node in graph_of((0,)).graph.node}
    model = graph_of(())
    assert not {'Shape', 'Range', 'ConstantOfShape'} & {node.op_type for node in model.graph.node}
    for value in (*model.graph.input, *model.graph.output):
        assert all(dim.dim_value for dim in value.type.tensor_type.shape.dim), value.name
    assert not [value.name for value in model.graph.initializer if value.data_type == onnx.TensorProto.BOOL]


def test_no_boolean_is_compared_or_stored():
    """OpenCV 5 and tract compare numbers alone."""
    model = onnx.shape_inference.infer_shapes(graph_of((0, 2, 3)), data_prop=True)
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    kinds.update({value.name: value.data_type for value in model.graph.initializer})
    assert onnx.TensorProto.BOOL not in {value.data_type for value in model.graph.initializer}
    compared = [name for node in model.graph.node if node.op_type == 'Equal' for name in node.input]
    assert onnx.TensorProto.BOOL not in {kinds[name] for name in compared}
    assert onnx.TensorProto.BOOL in kinds.values()  # the kinds are known


@pytest.mark.parametrize('kind', [torch.int64, torch.int32, torch.float32])
@pytest.mark.parametrize('divisor', [7, -7])
def test_floor_division_of_any_sign(kind, divisor):
    onnxruntime = pytest.importorskip('onnxruntime')

    class Divided(nn.Module):
        def forward(self, x):
            return x // divisor

    x = torch.arange(-20, 21).to(kind)
    program = torch.export.export(Divided(), (x,), strict=False)
    session = onnxruntime.InferenceSession(to_onnx(program, ['x'], ['y']).SerializeToString())
    (quotient,) = session.run(None, {'x': x.numpy()})
    np.testing.assert_array_equal(quotient, (x // divisor).numpy())


def test_a_norm_is_the_root_of_a_sum():
    """MNN 3.6.1 takes the norm of the whole tensor from ReduceL2, whose axes are an input since opset 18."""
    onnxruntime = pytest.importorskip('onnxruntime')

    class Normalized(nn.Module):
        def forward(self, x):
            return nn.functional.normalize(x, dim=-1)

    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    model = to_onnx(torch.export.export(Normalized(), (x,), strict=False), ['x'], ['y'])
    assert 'ReduceL2' not in {node.op_type for node in model.graph.node}
    (output,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {'x': x.numpy()})
    np.testing.assert_allclose(output, Normalized()(x).numpy(), rtol=1e-6)


def test_a_program_needs_no_library_of_onnx(repo, tmp_path):
    code = (
        'import sys\n'
        'from importlib import metadata\n'
        'known = metadata.version\n'
        'def version(name):\n'
        '    if name.startswith("onnx"):\n'
        '        raise metadata.PackageNotFoundError(name)\n'
        '    return known(name)\n'
        'metadata.version = version\n'
        'sys.modules["onnx"] = sys.modules["onnxscript"] = sys.modules["onnx_ir"] = None\n'
        'import torch\n'
        'from icconv_mm.app.export import run, networks, writers\n'
        'print(run.file_of("program", "net.pt2", ""))\n'
        'class Doubled(torch.nn.Module):\n'
        '    def forward(self, images):\n'
        '        return images[0] * 2\n'
        'program = networks.capture(Doubled(), ([torch.zeros(2, 3, 8, 8)],), [0])\n'
        'writers.write_program(program, {}, "net.pt2")\n'
    )
    command = [sys.executable, '-W', 'ignore', '-c', code]
    env = {**os.environ, 'PYTHONPATH': str(repo)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == 'net.pt2\n', done.stderr
    assert (tmp_path / 'net.pt2').is_file()


def test_a_folder_is_no_file_to_write(tmp_path):
    """Before the work, not when the finished file is moved there."""
    (tmp_path / 'net.pt2').mkdir()
    with pytest.raises(ArgumentError, match=r'out: .*net\.pt2 is a folder'):
        run.file_of('program', tmp_path / 'net.pt2', '')


def test_a_fixed_size_stores_no_tensor_of_one_value():
    """What is as large as a map is filled when the file runs."""

    class Filled(nn.Module):
        def forward(self, images):
            return torch.where(images[0] > 0, images[0], torch.full_like(images[0], -1))

    program = capture(Filled(), ([torch.zeros(1, 3, 48, 80)],), ())
    model = to_onnx(program, ['image'], ['filled'])
    assert max(value.ByteSize() for value in model.graph.initializer) < 100
