"""The page in the browser: its results equal the runtime's, and it says what it refuses."""

import base64
import hashlib
import http.client
import json
import threading
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from described import RULE, described, random_image
from shown_cases import CASES

from icconv_mm_runtime import RuntimeInputError, Session, limits
from icconv_mm_runtime.extra import web
from icconv_mm_runtime.images import Sample, arrays_of, preprocess
from icconv_mm_runtime.outputs import decode
from icconv_workshop import browser as driver

HOSTILE = '<img src=x onerror="document.title=1">'
GROUPING = {
    'max_num_people': 5, 'nms_kernel': 5, 'detection_threshold': 0.4, 'tag_threshold': 1.0, 'ignore_too_much': False,
    'adjust': True, 'refine': True, 'keypoint_order': None,
}  # fmt: skip
INSTANCE = {
    'name': 'instance', 'kind': 'instance', 'outputs': ['boxes', 'scores', 'labels', 'masks'],
    'classes': [HOSTILE, 'box', 'ring'], 'palette': None, 'mask_threshold': 0.5,
}  # fmt: skip
SEMANTIC = {
    'name': 'semantic', 'kind': 'semantic', 'outputs': ['logits'], 'classes': list('abcdefg'), 'palette': None,
    'align_corners': False, 'threshold': None,
}  # fmt: skip
POSE = {
    'name': 'pose', 'kind': 'pose', 'outputs': ['heatmaps', 'tags'], 'classes': ['person'], 'palette': None,
    'skeleton': [[0, 1], [1, 2]], 'grouping': GROUPING,
}  # fmt: skip
METADATA = described(
    steps=[{'op': 'resize', 'scale': [160, 96], 'keep_ratio': True}],
    batch={**RULE, 'divisor': 32, 'pads': True, 'sized': True},
    tasks=[INSTANCE, SEMANTIC, POSE],
)
BUSY, IDLE = (f"document.body.dataset.state === '{state}'" for state in ('busy', 'idle'))


def write_network(path, metadata=METADATA):
    """A network for boxes, masks, segmentation maps and people: maps are convolutions of the image, boxes constants."""
    onnx = pytest.importorskip('onnx')
    rng = np.random.default_rng(0)
    sums = rng.normal(size=(7 + 17 + 34, 3, 9, 9)).astype('f4') / 4000
    values = {
        'kernel': sums, 'quarter': np.array([1, 1, 0.25, 0.25], 'f4'), 'axis': np.array([1]),
        'boxes': rng.uniform(0, 60, (1, 6, 4)).astype('f4') + np.array([0, 0, 60, 30], 'f4'),
        'scores': np.array([[0.9, 0.8, 0.7, 0.4, 0.2, -1]], 'f4'), 'labels': np.array([[0, 1, 2, 0, 1, 0]]),
        'masks': cv2.GaussianBlur(rng.random((28, 28, 6)), (0, 0), 2).transpose(2, 0, 1)[None].astype('f4'),
        'splits': np.array([7, 17, 34]), 'none': np.zeros(0, 'f4'),
    }  # fmt: skip
    node = onnx.helper.make_node
    same = [node('Identity', [name], [f'instance.{name}']) for name in ('scores', 'labels', 'masks')]
    nodes = [
        node('Cast', ['image'], ['pixels'], to=onnx.TensorProto.FLOAT),
        node('Conv', ['pixels', 'kernel'], ['whole'], pads=[4] * 4),
        node('Split', ['whole', 'splits'], ['semantic.logits', 'heat', 'tag'], axis=1),
        node('Resize', ['heat', 'none', 'quarter'], ['pose.heatmaps'], mode='linear'),
        node('Resize', ['tag', 'none', 'quarter'], ['small'], mode='linear'),
        node('Split', ['small'], ['first', 'second'], axis=1, num_outputs=2),
        *(node('Unsqueeze', [name, 'axis'], [f'{name}_level']) for name in ('first', 'second')),
        node('Concat', ['first_level', 'second_level'], ['pose.tags'], axis=1),
        node('Div', ['size', 'size'], ['unit']),
        node('ReduceMean', ['unit'], ['one'], keepdims=0),
        node('Mul', ['boxes', 'one'], ['instance.boxes']),
        *same,
    ]
    floats, integers = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    inputs = [('image', onnx.TensorProto.UINT8, [1, 3, 'h', 'w']), ('size', floats, [1, 4])]
    outputs = [f'{task["name"]}.{name}' for task in METADATA['tasks'] for name in task['outputs']]
    described_outputs = [(name, integers if name.endswith('labels') else floats, None) for name in outputs]
    graph = onnx.helper.make_graph(
        nodes, 'network',
        [onnx.helper.make_tensor_value_info(*description) for description in inputs],
        [onnx.helper.make_tensor_value_info(*description) for description in described_outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 18)], ir_version=8)
    onnx.helper.set_model_props(model, {'icconv_mm': json.dumps(metadata)})
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    pytest.importorskip('onnxruntime')
    try:
        web.package(fetch=False)
    except RuntimeInputError as error:
        pytest.skip(str(error))
    if driver.executable() is None:
        pytest.skip('no Chromium is installed')
    return write_network(tmp_path_factory.mktemp('network') / 'network.onnx')


@contextmanager
def opened(folder, *options, isolated=True):
    """A browser with the page of a folder, when the page is idle."""
    with web.server(folder, isolated=isolated) as server, driver.browser(*options) as page:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            page.open(f'http://127.0.0.1:{server.server_port}/')
            page.wait(IDLE)
            yield page
        finally:
            server.shutdown()


@pytest.fixture(scope='module')
def page(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp('page')
    web.write_page(network, folder)
    with opened(folder) as page:
        yield page


def answer_to(page, path):
    """What the page shows for an image: its predictions, and its message."""
    page.run("document.getElementById('failure').textContent = document.getElementById('times').textContent = ''")
    page.choose('#file', path)
    page.wait(f"{IDLE} && ($('failure').textContent || / ms /.test($('times').textContent))")
    text = page.run('JSON.stringify(shown?.tasks, (_, each) => (ArrayBuffer.isView(each) ? Array.from(each) : each))')
    return json.loads(text or 'null'), page.run("$('failure').textContent")


def placed(mask, shape):
    whole = np.zeros(shape, bool)
    (x, y), (width, height) = mask['start'], mask['size']
    whole[y : y + height, x : x + width] = np.array(mask['data']).reshape(height, width)
    return whole


def check_equal(answer, expected, shape):
    """Fails unless the page's predictions of a task equal the runtime's."""
    if 'boxes' in expected:
        objects = answer['objects']
        np.testing.assert_allclose([item['box'] for item in objects], expected['boxes'], atol=1e-3)
        np.testing.assert_allclose([item['score'] for item in objects], expected['scores'], atol=1e-5)
        assert [item['label'] for item in objects] == expected['labels'].tolist()
        for item, mask in zip(objects, expected.get('masks', ())):
            assert (placed(item['mask'], shape) != mask).mean() <= 1e-5
    elif 'seg_map' in expected:
        assert answer['map']['size'] == [*shape[::-1]]
        assert (np.array(answer['map']['data']).reshape(shape) != expected['seg_map']).mean() <= 1e-5
    elif 'keypoints' in expected:
        people = np.array([person['keypoints'] for person in answer['people']]).reshape(len(expected['scores']), -1, 3)
        np.testing.assert_allclose(people[..., :2], expected['keypoints'], atol=1e-3)
        np.testing.assert_allclose(people[..., 2], expected['keypoint_scores'], atol=1e-5)
        np.testing.assert_allclose([person['score'] for person in answer['people']], expected['scores'], atol=1e-5)
    else:
        np.testing.assert_allclose(answer['scores'], expected['scores'], atol=1e-6)


@pytest.mark.parametrize(
    ('height', 'width', 'suffix'), [(96, 160, 'png'), (96, 160, 'jpg'), (231, 117, 'png'), (480, 640, 'jpg')]
)
def test_predictions_equal_those_of_the_runtime(page, network, tmp_path, height, width, suffix):
    path = tmp_path / f'image.{suffix}'
    cv2.imwrite(str(path), cv2.GaussianBlur(random_image(height, width), (0, 0), 2) * 5)
    answers, message = answer_to(page, path)
    (expected,) = Session(network, threads=1).predict(path)
    assert not message
    assert len(expected.tasks['instance']['scores']) == 5 and len(expected.tasks['pose']['scores']) > 0
    for name, task in expected.tasks.items():
        check_equal(answers[name], task, (height, width))


def in_javascript(value):
    """A NumPy array, or a structure of them, as a JavaScript expression."""
    if isinstance(value, dict):
        return '{' + ', '.join(f'{json.dumps(key)}: {in_javascript(item)}' for key, item in value.items()) + '}'
    if not isinstance(value, np.ndarray):
        return json.dumps(value)
    kind = {'f': 'Float32Array', 'u': 'Uint8Array', 'i': 'BigInt64Array'}[value.dtype.kind]
    text = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
    return f"new {kind}(Uint8Array.from(atob('{text}'), (letter) => letter.charCodeAt(0)).buffer)"


def in_page(page, image, metadata, outputs):
    """The inputs that the page computes, and its predictions for these outputs."""
    planes = {'size': image.shape[1::-1], 'data': image.transpose(2, 0, 1)}
    tensors = {name: {'data': value, 'dims': value.shape} for name, value in outputs.items()}
    constants = {name: getattr(limits, name) for name in dir(limits) if name.startswith('MAX_')}
    text = page.run(f"""import('./network.js').then(({{ preprocess, decode }}) => {{
        const [metadata, limits, outputs] = [{json.dumps(metadata)}, {json.dumps(constants)}, {in_javascript(tensors)}];
        const {{ sample, inputs }} = preprocess({in_javascript(planes)}, metadata, limits);
        const found = metadata.tasks.map((task) => decode(task, outputs, sample, limits));
        return JSON.stringify({{ inputs, found }}, (_, each) => (ArrayBuffer.isView(each) ? Array.from(each) : each));
    }})""")
    return json.loads(text)


def pyramid(rng, levels):
    return {
        'heatmaps': cv2.GaussianBlur(rng.random((32, 48, 17)), (0, 0), 1.5).transpose(2, 0, 1)[None].astype('f4') * 1.2,
        'tags': rng.integers(0, 3, (1, levels, 17, 32, 48)).astype('f4') + rng.normal(0, 0.1, (1, levels, 17, 32, 48)),
    }


STEPS = {
    'resize': [{'op': 'resize', 'scale': [90, 60], 'keep_ratio': True}],
    'half': [{'op': 'resize', 'scale': [61, 45], 'keep_ratio': False}],
    'classifier': [{'op': 'resize_edge', 'scale': 50, 'edge': 'short'}, {'op': 'center_crop', 'size': [41, 44]}],
    'letterbox': [
        {'op': 'resize', 'scale': [64, 64], 'keep_ratio': True},
        {'op': 'pad', 'size': [64, 64], 'value': [1, 114, 114]},
    ],
    'pyramid': [{'op': 'pyramid', 'input_size': [96, 96], 'scales': [0.5, 1, 2], 'size_divisor': 32, 'stride': 32}],
    'fit': [{'op': 'fit', 'input_size': [96, 64], 'value': [114, 7, 250]}],
}


@pytest.mark.parametrize('steps', STEPS)
@pytest.mark.parametrize('size', [(90, 122), (131, 40)])
def test_inputs_equal_those_of_the_runtime(page, steps, size):
    image = random_image(*size)
    batch = {**RULE, 'divisor': 32 if steps == 'resize' else 1, 'sized': steps == 'resize'}
    metadata = described(steps=STEPS[steps], batch=batch, tasks=[])
    inputs = in_page(page, image, metadata, {})['inputs']
    expected = arrays_of([preprocess(Sample('image', image), metadata['steps'])], batch)
    assert list(inputs) == list(expected)
    for name, value in expected.items():
        assert inputs[name]['dims'] == list(value.shape)
        np.testing.assert_array_equal(np.reshape(inputs[name]['data'], value.shape), value)


def cases():
    rng = np.random.default_rng(1)
    scale = [{'op': 'resize', 'scale': [61, 45], 'keep_ratio': False}]
    logits = cv2.GaussianBlur(rng.normal(size=(45, 61, 5)), (0, 0), 3).transpose(2, 0, 1)[None].astype('f4')
    semantic = {**SEMANTIC, 'name': ''}
    yield 'aligned', {**semantic, 'align_corners': True}, scale, {'logits': logits}
    yield 'one class', {**semantic, 'threshold': 0.5}, scale, {'logits': logits[:, :1]}
    pose = {**POSE, 'name': ''}
    for levels, steps in ((1, scale), (3, STEPS['pyramid'])):
        yield f'pose {levels}', pose, steps, pyramid(rng, levels)
    rule = {**GROUPING, 'ignore_too_much': True, 'max_num_people': 2, 'adjust': False, 'refine': False, 'nms_kernel': 4}
    yield 'pose rule', {**pose, 'grouping': rule}, STEPS['pyramid'], pyramid(rng, 2)
    people = {
        'keypoints': rng.uniform(0, 60, (1, 4, 17, 2)).astype('f4'),
        'keypoint_scores': rng.random((1, 4, 17)).astype('f4'),
        'scores': np.array([[0.9, 0.4, -1, -1]], 'f4'),
    }
    yield 'keypoints', {**pose, 'grouping': None, 'outputs': list(people)}, STEPS['fit'], people
    scores = rng.random((1, 9)).astype('f4')
    yield 'classification', {'name': '', 'kind': 'classification', 'outputs': ['scores']}, scale, {'scores': scores}


@pytest.mark.parametrize(('task', 'steps', 'outputs'), [pytest.param(*case[1:], id=case[0]) for case in cases()])
def test_decoding_equals_that_of_the_runtime(page, task, steps, outputs):
    outputs = {name: value.astype('f4') for name, value in outputs.items()}
    image = random_image(90, 122)
    (answer,) = in_page(page, image, described(steps=steps, tasks=[task]), outputs)['found']
    sample = preprocess(Sample('image', image), steps)
    arrays_of([sample], RULE)
    expected = decode(task, outputs, 0, sample)
    assert len(expected.get('keypoints', 'x')) > 0
    check_equal(answer, expected, (90, 122))


def test_names_are_text(page, tmp_path):
    cv2.imwrite(str(tmp_path / 'image.png'), random_image(64, 64))
    answer_to(page, tmp_path / 'image.png')
    assert HOSTILE in page.run("$('list').textContent")
    assert page.run("document.querySelectorAll('img').length") == 0 and page.run('document.title') == 'network.onnx'


def test_threshold_and_tasks_change_what_is_listed(page, tmp_path):
    cv2.imwrite(str(tmp_path / 'image.png'), random_image(64, 64))
    answer_to(page, tmp_path / 'image.png')
    listed = "$('list').querySelector('ul').children.length"
    for threshold, count in ((0.3, 4), (0.75, 2), (1, 1), (0.3, 4)):  # at 1 the line that nothing is left
        page.run(f"$('threshold').value = {threshold}; $('threshold').oninput()")
        assert page.run(listed) == count
    headings = "Array.from($('list').querySelectorAll('h2'), (each) => each.textContent)"
    page.run("$('task-semantic').click()")
    assert page.run(headings) == ['instance', 'pose']
    page.run("$('task-semantic').click()")
    assert page.run(headings) == ['instance', 'semantic', 'pose']


def test_images_that_are_refused(page, tmp_path):
    (tmp_path / 'broken.png').write_bytes(cv2.imencode('.png', random_image(64, 64))[1].tobytes()[:60])
    (tmp_path / 'text.jpg').write_text('no image')
    cv2.imwrite(str(tmp_path / 'huge.png'), np.zeros((8200, 8200), np.uint8))
    cv2.imwrite(str(tmp_path / 'thin.png'), np.zeros((1, 3000), np.uint8))
    for name, message in {
        'broken.png': 'is no image that this browser can read, or is damaged',
        'text.jpg': 'is no image that this browser can read, or is damaged',
        'huge.png': '8200x8200 pixels in',
        'thin.png': '3000x1 pixels would become 160x0',
    }.items():
        assert answer_to(page, tmp_path / name)[1].startswith(f'{name}: {message}')
    cv2.imwrite(str(tmp_path / 'good.png'), random_image(64, 64))
    assert answer_to(page, tmp_path / 'good.png')[1] == ''


def test_the_page_moves_while_it_computes(page, tmp_path):
    """The Worker computes: the page draws frames meanwhile."""
    cv2.imwrite(str(tmp_path / 'image.png'), random_image(3000, 4000))
    page.run("""
        window.frames_drawn = 0;
        const look = () => {
            if (document.body.dataset.state === 'busy') frames_drawn += 1;
            if (!window.ended) requestAnimationFrame(look);
        };
        requestAnimationFrame(look);
    """)
    assert page.run("getComputedStyle($('progress')).visibility") == 'hidden'
    answer_to(page, tmp_path / 'image.png')
    page.run('window.ended = true')
    assert page.run('frames_drawn') >= 5


def test_threads_need_a_server_that_isolates(network, tmp_path, page):
    web.write_page(network, tmp_path)
    state = "$('state').textContent"
    with opened(tmp_path, isolated=False) as alone:
        assert '1 thread (more if the server sends COOP and COEP)' in alone.run(state)
    cores = page.run('navigator.hardwareConcurrency')
    assert f'{min(cores, max(2, min(8, -(-cores // 2))))} thread' in page.run(state)


def test_a_single_file_opens_without_a_server(network, tmp_path):
    path = web.write_page(network, tmp_path / 'page', single_file=True)
    assert [file.name for file in path.parent.iterdir()] == ['index.html']
    image = tmp_path / 'image.png'
    cv2.imwrite(str(image), random_image(96, 160))
    with driver.browser() as page:
        page.open(path.as_uri())
        page.wait(IDLE)
        answers, message = answer_to(page, image)
    (expected,) = Session(network, threads=1).predict(image)
    assert not message
    for name, task in expected.tasks.items():
        check_equal(answers[name], task, (96, 160))


def test_a_folder_opened_as_a_file_says_what_it_needs(network, tmp_path):
    path = web.write_page(network, tmp_path)
    with driver.browser() as page:
        page.open(path.as_uri())
        page.wait("$('failure').textContent")
        assert 'this page needs a server' in page.run("$('failure').textContent")


def test_a_file_that_is_no_network(network, tmp_path):
    web.write_page(network, tmp_path)
    (tmp_path / 'network.onnx').write_bytes(b'no network')
    with opened(tmp_path) as page:
        assert 'network.onnx is no network for ONNX Runtime Web' in page.run("$('failure').textContent")
    (tmp_path / 'network.onnx').unlink()
    with opened(tmp_path) as page:
        assert page.run("$('failure').textContent") == 'network.onnx: the server answers 404'


def test_camera(network, tmp_path):
    web.write_page(network, tmp_path)
    with opened(tmp_path, '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream') as page:
        page.run('window.count = 0; const before = show; show = (...each) => { count += 1; before(...each); }')
        page.run("$('camera').click()")
        page.wait('count >= 3')
        assert page.run("$('times').textContent").startswith('camera, ') and not page.run("$('failure').textContent")
        page.run("$('camera').click()")
        page.wait(f"{IDLE} && $('camera').getAttribute('aria-pressed') === 'false'")
        assert page.run('camera') is None


def test_npm_fetches_the_package_once(tmp_path, monkeypatch):
    """A pretended npm packs an archive; the second call needs none, and other files than the tested are refused."""
    names = ['dist/ort-wasm-simd-threaded.wasm', 'dist/ort.wasm.bundle.min.mjs', 'dist/other.js', 'package.json']
    for name in names:
        (tmp_path / 'source/package' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'source/package' / name).write_text(name)
    npm = tmp_path / 'bin/npm'
    npm.parent.mkdir()
    npm.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ntar czf made.tgz -C {tmp_path}/source package\n')
    npm.chmod(0o755)
    monkeypatch.delenv(web.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setenv('PATH', str(npm.parent), prepend=':')
    with pytest.raises(RuntimeInputError, match='no such file; the page needs the npm package'):
        web.package(fetch=False)
    with pytest.raises(RuntimeInputError, match=r'npm pack onnxruntime-web@.*: dist/.* has the SHA-256 .*, expected '):
        web.package()
    for name in names[:2]:
        monkeypatch.setitem(web._SHA256, name, hashlib.sha256(name.encode()).hexdigest())
    folder = web.package()
    assert web.package() == folder and len((tmp_path / 'calls').read_text().splitlines()) == 2
    assert f'onnxruntime-web@{web.library_version()}' in (tmp_path / 'calls').read_text()
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob('*.*')) == names[:2]
    assert [path.name for path in (tmp_path / 'cache').iterdir()] == [folder.name]
    npm.write_text('#!/bin/sh\necho "npm error: offline" >&2\nexit 1\n')
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path / 'other'))
    with pytest.raises(RuntimeInputError, match=r'npm pack onnxruntime-web@.*: npm error: offline'):
        web.package()


def test_the_page_shows_what_python_shows(network, tmp_path):
    """The table of cases that the rule of Python is tested with."""
    web.write_page(network, tmp_path)
    with opened(tmp_path) as page:
        for scores, labels, thresholds, score_thr, indices in CASES:
            objects = [{'score': float(np.float32(score))} for score in scores]
            for item, label in zip(objects, labels or ()):
                item['label'] = label
            answer = {'people' if labels is None else 'objects': objects}
            task = {'classes': ['a', 'b']} | ({} if thresholds is None else {'thresholds': thresholds})
            page.run(f'chosen = {json.dumps(score_thr)}')
            items = page.run(f'itemsOf({json.dumps(task)}, {json.dumps(answer)}).map((item) => item.score)')
            assert items == [objects[index]['score'] for index in indices]


def test_each_class_is_shown_from_its_threshold(network, tmp_path):
    """Until the slider chooses one for all."""
    tasks = [{**INSTANCE, 'thresholds': [0.85, None, 0.5]}, *METADATA['tasks'][1:]]
    write_network(tmp_path / 'network.onnx', {**METADATA, 'tasks': tasks})
    cv2.imwrite(str(tmp_path / 'image.png'), random_image(96, 160))
    web.write_page(tmp_path / 'network.onnx', tmp_path / 'page')
    listed = "[...$('list').querySelector('ul').children].map((item) => item.lastChild.textContent)"
    with opened(tmp_path / 'page') as page:
        assert page.run("$('least').textContent") == 'best of each class'
        answer_to(page, tmp_path / 'image.png')
        assert page.run(listed) == ['0.90', '0.80', '0.70']
        page.run("$('threshold').value = 0.35; $('threshold').oninput()")
        assert page.run(listed) == ['0.90', '0.80', '0.70', '0.40'] and page.run("$('least').textContent") == '0.35'


def test_what_the_command_refuses(tmp_path, monkeypatch):
    pytest.importorskip('onnxruntime')
    from icconv_mm_runtime.__main__ import main

    file = write_network(tmp_path / 'network.onnx')
    monkeypatch.setenv(web.FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / 'network.xml').write_text('')
    for name, message in {
        file.name: f'dist/ort.wasm.bundle.min.mjs: no such file; the page needs the npm package onnxruntime-web '
        f'{web.library_version()}: install npm, or unpack it and set {web.FOLDER_VARIABLE} to its folder',
        'network.xml': 'network.xml: ONNX Runtime Web reads .onnx and .ort',
        'absent.onnx': 'absent.onnx: no such file',
    }.items():
        with pytest.raises(SystemExit) as end:
            main([str(tmp_path / name), '--web', str(tmp_path / 'page')])
        assert message in str(end.value) and '\n' not in str(end.value)
    assert not (tmp_path / 'page').exists()


def test_the_server_sends_the_page_alone_and_to_its_own_name(tmp_path):
    page = tmp_path / 'page'
    (page / 'older').mkdir(parents=True)
    for path in (page / 'index.html', tmp_path / 'secret.txt', page / 'older/mine.txt', page / 'mine.txt'):
        path.write_text(path.name)
    (page / 'network.js').symlink_to(tmp_path / 'secret.txt')
    with web.server(page) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()

        def answer(path, host=f'127.0.0.1:{serving.server_port}'):
            connection = http.client.HTTPConnection('127.0.0.1', serving.server_port, timeout=10)
            connection.request('GET', path, headers={'Host': host})
            return connection.getresponse().status

        assert [answer(path) for path in ('/', '/index.html', '/index.html?1')] == [200, 200, 200]
        assert answer('/', 'localhost:1') == 200
        others = ('/mine.txt', '/network.js', '/older/', '/older/mine.txt', '/../secret.txt', '/%2e%2e/secret.txt')
        assert {answer(path) for path in others} == {404}
        assert {answer('/', host) for host in ('a.example', '127.0.0.1.a.example', '')} == {404}
        serving.shutdown()


def test_a_port_that_another_program_has(tmp_path, monkeypatch):
    from icconv_mm_runtime.__main__ import main

    monkeypatch.setattr(web, 'write_page', lambda *_: tmp_path / 'index.html')
    with web.server(tmp_path) as other, pytest.raises(SystemExit) as end:
        main(['net.onnx', '--web', str(tmp_path), '--serve', str(other.server_port)])
    assert end.value.code == f'error: --serve {other.server_port}: Address already in use'
