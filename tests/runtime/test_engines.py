"""Files that the runtime opens, and those that it refuses."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from described import described, random_image

from icconv_mm_runtime import RuntimeInputError, Session, limits
from icconv_mm_runtime.images import read_all


def onnx_file(path, metadata):
    onnx = pytest.importorskip('onnx')
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in 'xy']
    graph = onnx.helper.make_graph([onnx.helper.make_node('Relu', ['x'], ['y'])], 'graph', value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 18)], ir_version=9)
    if metadata is not None:
        onnx.helper.set_model_props(model, {'icconv_mm': json.dumps(metadata)})
    onnx.save(model, str(path))


def test_metadata_that_are_too_long_are_not_parsed(monkeypatch):
    from icconv_mm_runtime.metadata import parsed

    text = json.dumps(described())
    assert parsed(text, 'net') == described()
    monkeypatch.setattr(limits, 'MAX_METADATA_BYTES', len(text) - 1)
    with pytest.raises(RuntimeInputError, match=f'net: has {len(text)} bytes of metadata, at most {len(text) - 1}'):
        parsed(text, 'net')
    monkeypatch.undo()
    with pytest.raises(RuntimeInputError, match='net: its metadata are no JSON'):
        parsed(text[:-1], 'net')


def test_a_bad_file(tmp_path, capsys):
    pytest.importorskip('onnxruntime')
    onnx_file(tmp_path / 'other.onnx', None)
    onnx_file(tmp_path / 'newer.onnx', described(schema=99))
    (tmp_path / 'broken.onnx').write_bytes(b'no model')
    onnx_file(tmp_path / 'list.onnx', [3])
    (tmp_path / 'folder.onnx').mkdir()
    expected = {
        'list.onnx': 'its metadata must be fields and values, got ',
        'folder.onnx': 'no such file',
        'other.onnx': 'has no metadata of icconv_mm; write it with tools/export.py',
        'newer.onnx': 'its metadata have schema 99, this icconv_mm_runtime reads up to 1',
        'broken.onnx': 'cannot be read',
        'absent.onnx': 'no such file',
        'network.pth': 'no such file',
    }
    for name, message in expected.items():
        with pytest.raises(RuntimeInputError, match=message):
            Session(tmp_path / name)
    from icconv_mm_runtime.__main__ import main

    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / 'other.onnx'), str(tmp_path), '--out-dir', str(tmp_path / 'out')])
    assert str(end.value).startswith('error: ') and '\n' not in str(end.value)


def test_a_file_in_the_format_of_onnx_runtime(tmp_path):
    """What its converter makes of an exported file, with the metadata."""
    pytest.importorskip('onnxruntime')
    onnx_file(tmp_path / 'net.onnx', described())
    converter = [sys.executable, '-m', 'onnxruntime.tools.convert_onnx_models_to_ort', str(tmp_path / 'net.onnx')]
    subprocess.run([*converter, '--optimization_style', 'Fixed'], check=True, capture_output=True)
    session = Session(tmp_path / 'net.ort')
    assert session.metadata == described()
    np.testing.assert_array_equal(session.run({'x': np.array([-1], np.float32)})['y'], [0])


def test_a_session_in_another_process(tmp_path):
    pytest.importorskip('onnxruntime')
    onnx_file(tmp_path / 'net.onnx', described())
    session = pickle.loads(pickle.dumps(Session(tmp_path / 'net.onnx', threads=1)))
    assert session.threads == 1
    np.testing.assert_array_equal(session.run({'x': np.array([2], np.float32)})['y'], [2])
    with pytest.raises(RuntimeInputError, match='a session of another runtime'):
        pickle.dumps(Session.of(described(), session.run, 'net'))


def test_names_of_arrays():
    one = random_image(4, 4)
    assert [name for name, _ in read_all(one)] == ['array']
    assert [name for name, _ in read_all([one, one])] == ['array_0', 'array_1']


def test_weights_of_another_export_are_not_opened(tmp_path):
    """The ``.xml`` says of which ``.bin`` it is."""
    openvino = pytest.importorskip('openvino')
    writers = pytest.importorskip('icconv_mm.app.export.writers')
    onnx_file(tmp_path / 'net.onnx', None)
    for name in 'ab':
        model = openvino.convert_model(str(tmp_path / 'net.onnx'))
        if name == 'b':  # other weights
            weight = openvino.opset13.constant(np.ones(1, np.float32))
            added = openvino.opset13.add(model.outputs[0].get_node().input_value(0), weight)
            model = openvino.Model([added], model.get_parameters())
        writers.write_openvino(model, described(), tmp_path / f'{name}.xml')
        Session(tmp_path / f'{name}.xml')
    (tmp_path / 'b.bin').write_bytes((tmp_path / 'b.bin').read_bytes()[::-1])
    with pytest.raises(RuntimeInputError, match=r'b.bin: is of another export than the .xml beside it'):
        Session(tmp_path / 'b.xml')


def test_a_runtime_that_is_missing(tmp_path, monkeypatch):
    onnx_file(tmp_path / 'net.onnx', described())
    for name in ('onnxruntime', 'openvino'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeInputError, match='needs onnxruntime or openvino: pip install onnxruntime'):
        Session(tmp_path / 'net.onnx')


SIGNAL_STACK = """
import ctypes, gc, sys
from icconv_mm_runtime import Session

class Stack(ctypes.Structure):
    _fields_ = [('start', ctypes.c_void_p), ('flags', ctypes.c_int), ('size', ctypes.c_size_t)]

first = Session(sys.argv[1], device='openvino')
second = Session(sys.argv[1], device='openvino')
del first
gc.collect()
del second
gc.collect()
stack = Stack()
ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
ranges = [line.split()[0].split('-') for line in open('/proc/self/maps')]
mapped = any(int(start, 16) <= (stack.start or 0) < int(end, 16) for start, end in ranges)
print('valid' if stack.start is None or mapped else 'freed')
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_sessions_of_openvino_leave_no_freed_signal_stack(tmp_path, repo):
    """Python runs its signal handlers on it: a process whose DataLoader's workers end would crash."""
    pytest.importorskip('openvino')
    onnx_file(tmp_path / 'net.onnx', described())
    command = [sys.executable, '-c', SIGNAL_STACK, str(tmp_path / 'net.onnx')]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True)
    assert done.stdout == 'valid\n', done.stderr
