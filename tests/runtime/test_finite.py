"""A network whose weights are not finite predicts nothing: it is refused with the name of the first tensor."""

import numpy as np
import pytest

from icconv_mm_runtime import RuntimeInputError, Session, finite

onnx = pytest.importorskip('onnx')


def network(path, *weights, kind=onnx.TensorProto.FLOAT):
    """A network that adds nothing of its weights to its input, with the metadata of an exported file."""
    import json

    from described import described
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info('image', TensorProto.UINT8, ['n', 3, 'h', 'w'])
    scores = helper.make_tensor_value_info('scores', TensorProto.FLOAT, ['n', 2])
    nodes = [
        helper.make_node('Cast', ['image'], ['pixels'], to=TensorProto.FLOAT),
        helper.make_node('ReduceMean', ['pixels', 'axes'], ['mean'], keepdims=0),
        helper.make_node('Slice', ['mean', 'zero', 'two', 'one'], ['scores']),
    ]
    constants = [helper.make_tensor('axes', TensorProto.INT64, [2], [2, 3])]
    constants += [
        helper.make_tensor(name, TensorProto.INT64, [1], [k]) for name, k in (('zero', 0), ('two', 2), ('one', 1))
    ]
    graph = helper.make_graph(nodes, 'g', [image], [scores], [*constants, *weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8)
    helper.set_model_props(model, {'icconv_mm': json.dumps(described())})
    onnx.save(model, str(path))
    return path


def weight(values, kind, raw):
    values = np.asarray(values, np.float32)
    content = values.ravel().tolist()
    if raw:
        types = {
            onnx.TensorProto.FLOAT: np.float32,
            onnx.TensorProto.FLOAT16: np.float16,
            onnx.TensorProto.DOUBLE: np.float64,
        }
        is_bfloat16 = kind == onnx.TensorProto.BFLOAT16
        cast = (values.view(np.uint32) >> 16).astype(np.uint16) if is_bfloat16 else values.astype(types[kind])
        content = cast.tobytes()
    return onnx.helper.make_tensor('layer.weight', kind, values.shape, content, raw=raw)


KINDS = [(getattr(onnx.TensorProto, name), True) for name in ('FLOAT', 'FLOAT16', 'DOUBLE', 'BFLOAT16')]
KINDS += [(getattr(onnx.TensorProto, name), False) for name in ('FLOAT', 'DOUBLE', 'FLOAT16', 'BFLOAT16')]


@pytest.mark.parametrize(('kind', 'raw'), KINDS)
@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_weights_of_onnx(tmp_path, kind, raw, bad):
    good = network(tmp_path / 'good.onnx', weight([[1, -2], [3e4, 0]], kind, raw))
    weights = dict(finite.stored_weights(good))
    np.testing.assert_array_equal(weights['layer.weight'], [1, -2, np.float32(29952) if kind == 16 else 3e4, 0])
    assert finite.first_not_finite(weights.items()) is None
    Session(good)
    broken = network(tmp_path / 'bad.onnx', weight([[1, -2], [bad, 0]], kind, raw))
    with pytest.raises(RuntimeInputError, match=r'bad\.onnx: layer\.weight has values that are not finite, as after a'):
        Session(broken)


@pytest.mark.parametrize('values', [[-np.inf], [[0, -np.inf], [0, 0]], [[-np.inf, -np.inf, 1]]])
def test_a_network_may_compare_with_infinite_numbers(tmp_path, values):
    """In a scalar or a mask."""
    Session(network(tmp_path / 'a.onnx', weight(values, onnx.TensorProto.FLOAT, True)))


def test_a_scalar_and_a_constant_that_are_no_number(tmp_path):
    with pytest.raises(RuntimeInputError, match=r'layer\.weight has values that are not finite'):
        Session(network(tmp_path / 'a.onnx', weight([np.nan], onnx.TensorProto.FLOAT, True)))
    model = onnx.load(network(tmp_path / 'b.onnx'))
    constant = onnx.helper.make_node('Constant', [], ['shift'], value=weight([1, np.nan], onnx.TensorProto.FLOAT, True))
    constant.attribute[0].t.name = ''
    model.graph.node.insert(0, constant)
    onnx.save(model, tmp_path / 'b.onnx')
    with pytest.raises(RuntimeInputError, match=r'shift has values that are not finite'):
        Session(tmp_path / 'b.onnx')


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_weights_in_another_file(tmp_path, bad):
    """They are checked as those in the file, whatever other tensors stand before them."""
    pytest.importorskip('onnxruntime')
    for name, last in (('good', 3.0), ('bad', bad)):
        model = onnx.load(network(tmp_path / 'a.onnx', weight([[1, -2], [last, 0]], onnx.TensorProto.FLOAT, True)))
        other = onnx.helper.make_tensor('other', onnx.TensorProto.FLOAT, [600], np.ones(600, 'f4').tobytes(), raw=True)
        model.graph.initializer.insert(0, other)
        options = {'save_as_external_data': True, 'location': f'{name}.data', 'size_threshold': 0}
        onnx.save(model, tmp_path / f'{name}.onnx', **options)
    weights = dict(finite.stored_weights(tmp_path / 'good.onnx'))
    assert weights['layer.weight'].tolist() == [1, -2, 3, 0] and weights['other'].sum() == 600
    Session(tmp_path / 'good.onnx')
    with pytest.raises(RuntimeInputError, match=r'bad\.onnx: layer\.weight has values that are not finite'):
        Session(tmp_path / 'bad.onnx')


@pytest.mark.parametrize(('kind', 'raw'), KINDS)
def test_the_format_of_onnxruntime(tmp_path, kind, raw):
    """The weight is a second output, as ONNX Runtime drops what no output needs."""
    onnxruntime = pytest.importorskip('onnxruntime')
    for name, last in (('good', 3.0), ('bad', np.nan)):
        model = onnx.load(network(tmp_path / f'{name}.onnx', weight([[1, -2], [last, 0]], kind, raw)))
        model.graph.node.append(onnx.helper.make_node('Identity', ['layer.weight'], ['same']))
        model.graph.output.append(onnx.helper.make_tensor_value_info('same', kind, [2, 2]))
        onnx.save(model, tmp_path / f'{name}.onnx')
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f'{name}.ort')
        options.add_session_config_entry('session.save_model_format', 'ORT')
        onnxruntime.InferenceSession(str(tmp_path / f'{name}.onnx'), options, providers=['CPUExecutionProvider'])
    assert [1, -2, 3, 0] in [values.tolist() for _, values in finite.stored_weights(tmp_path / 'good.ort')]
    Session(tmp_path / 'good.ort')
    with pytest.raises(RuntimeInputError, match=r'bad\.ort: \S+ has values that are not finite'):
        Session(tmp_path / 'bad.ort')


def branching(path, value, place):
    """A network of two branches, one of which adds a number; or a function adds it."""
    from onnx import TensorProto, helper

    model = onnx.load(network(path))
    constant = helper.make_tensor('deep.weight', TensorProto.FLOAT, [2], [1.0, value])
    if place == 'floats':
        shift = helper.make_node('Constant', [], ['shift'], value_floats=[1.0, value])
    elif place == 'float':
        shift = helper.make_node('Constant', [], ['shift'], value_float=value)
    elif place == 'sparse':
        indices = helper.make_tensor('indices', TensorProto.INT64, [2], [0, 1])
        shift = helper.make_node(
            'Constant', [], ['shift'], sparse_value=helper.make_sparse_tensor(constant, indices, [2])
        )
    else:
        shift = helper.make_node('Constant', [], ['shift'], value=constant)
    nodes = [shift, helper.make_node('Add', ['scores_of_all', 'shift'], ['sum'])]
    out = helper.make_tensor_value_info('sum', TensorProto.FLOAT, ['n', 2])
    model.graph.node[-1].output[0] = 'scores_of_all'
    if place == 'function':
        opsets = [helper.make_opsetid('', 18)]
        model.functions.append(helper.make_function('mine', 'Shift', ['scores_of_all'], ['sum'], nodes, opsets))
        model.graph.node.append(helper.make_node('Shift', ['scores_of_all'], ['scores'], domain='mine'))
        model.opset_import.append(helper.make_opsetid('mine', 1))
    else:
        initializers = [constant] if place == 'initializer' else []
        nodes[1].input[1] = 'deep.weight' if initializers else 'shift'
        branch = helper.make_graph(nodes[bool(initializers) :], 'then', [], [out], initializers)
        same = helper.make_node('Identity', ['scores_of_all'], ['sum'])
        other = helper.make_graph([same], 'else', [], [out])
        highest = helper.make_node('ReduceMax', ['scores_of_all'], ['highest'], keepdims=0)
        is_high = helper.make_node('Greater', ['highest', 'half'], ['is_high'])
        model.graph.initializer.append(helper.make_tensor('half', TensorProto.FLOAT, [], [0.5]))
        choice = helper.make_node('If', ['is_high'], ['scores'], then_branch=branch, else_branch=other)
        model.graph.node.extend([highest, is_high, choice])
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


PLACES = ['tensor', 'floats', 'float', 'initializer', 'function', 'sparse']


@pytest.mark.parametrize('place', PLACES)
def test_weights_of_a_branch_or_a_function(tmp_path, place):
    pytest.importorskip('onnxruntime')
    Session(branching(tmp_path / 'good.onnx', 3.0, place))
    with pytest.raises(RuntimeInputError, match=r'bad\.onnx: (deep\.weight|shift) has values that are not finite'):
        Session(branching(tmp_path / 'bad.onnx', np.nan, place))


@pytest.mark.parametrize('place', [place for place in PLACES if place != 'function'])
@pytest.mark.parametrize('level', [0, 99])
def test_weights_of_a_branch_in_the_format_of_onnxruntime(tmp_path, place, level):
    onnxruntime = pytest.importorskip('onnxruntime')
    for name, value in (('good', 3.0), ('bad', np.nan)):
        file = branching(tmp_path / f'{name}.onnx', value, place)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(level)
        options.optimized_model_filepath = str(tmp_path / f'{name}.ort')
        options.add_session_config_entry('session.save_model_format', 'ORT')
        onnxruntime.InferenceSession(str(file), options, providers=['CPUExecutionProvider'])
    Session(tmp_path / 'good.ort')
    with pytest.raises(RuntimeInputError, match=r'bad\.ort: \S* ?has values that are not finite'):
        Session(tmp_path / 'bad.ort')


def test_openvino_has_weights_in_branches(tmp_path):
    openvino = pytest.importorskip('openvino')
    for name, value in (('good', 3.0), ('bad', np.nan)):
        file = branching(tmp_path / f'{name}.onnx', value, 'tensor')
        model = openvino.convert_model(str(file))
        model.set_rt_info(onnx.load(file).metadata_props[0].value, 'icconv_mm')
        openvino.save_model(model, tmp_path / f'{name}.xml', compress_to_fp16=False)
    Session(tmp_path / 'good.xml')
    for broken in ('bad.xml', 'bad.onnx'):
        with pytest.raises(RuntimeInputError, match=r'bad\.\w+: \S+ has values that are not finite'):
            Session(tmp_path / broken, device='openvino')


def test_openvino(tmp_path):
    openvino = pytest.importorskip('openvino')
    file = network(tmp_path / 'a.onnx')
    model = openvino.convert_model(str(file))
    for values, is_refused in (([1.0, 2.0], False), ([1.0, np.nan], True)):
        from openvino import opset13

        added = opset13.add(model.outputs[0].node.input_value(0), opset13.constant(np.float32(values), name='bias'))
        marked = openvino.Model([opset13.result(added)], model.get_parameters(), 'm')
        marked.outputs[0].get_tensor().set_names({'scores'})
        marked.set_rt_info(model.get_rt_info(['framework', 'icconv_mm']).astype(str), 'icconv_mm')
        openvino.save_model(marked, tmp_path / 'b.xml', compress_to_fp16=False)
        if is_refused:
            with pytest.raises(RuntimeInputError, match=r'b\.xml: bias has values that are not finite'):
                Session(tmp_path / 'b.xml')
        else:
            Session(tmp_path / 'b.xml')


@pytest.mark.parametrize(
    'content', [b'', b'\x3a', b'\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff', b'\xff' * 99, b'text' * 9]
)
def test_what_is_no_network_has_no_weights(tmp_path, content):
    (tmp_path / 'a').write_bytes(content)
    assert list(finite.stored_weights(tmp_path / 'a')) == []
