"""From a checkpoint to a file, and to results without torch."""

import json
import subprocess
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from skips import EXPORTS

pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')
pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpose')
if not EXPORTS:
    pytest.skip('this torch is too old for exports', allow_module_level=True)

import icconv_mm
from icconv_mm import apis
from icconv_mm.app.export import export as exporting
from icconv_mm.app.export.check import check_file, is_tie
from icconv_mm.app.export.comparison import LIMITS, compared, is_close
from icconv_mm.app.export.description import describe
from icconv_mm.app.export.export import compare_metrics
from icconv_mm.app.export.networks import Exported
from icconv_mm.app.runs.begin import begin
from icconv_mm.app.runs.prepare import Predicting
from icconv_mm.errors import InputError, MissingLibraryError
from icconv_mm_runtime import Session
from icconv_mm_runtime.metadata import KEY, check_metadata

JOINT = 'multitask/multitask_ic-r18_fpn_miniature.py'
DETECTOR = 'detection/faster-rcnn_ic-r18_fpn_miniature.py'
POSE = 'pose/ae_ic-r18_miniature.py'
CLASSIFIER = 'classification/pyconv-resnet18_8xb32-90e_in1k.py'
SEGMENTOR = 'semantic_segmentation/fpn_ic-r18_miniature.py'
AUGMENTED = dict(type='TestTimeAug', transforms=[[dict(type='Resize', scale=(64, 64))], [dict(type='PackSegInputs')]])
SQUARE = dict(fixed=(128, 128))  # torch's exporter is slow where sizes are free
ARRAYS = 'boxes', 'scores', 'labels', 'masks', 'seg_map', 'keypoints', 'probs'
WITHOUT_TORCH = (
    'import sys\n'
    'for name in "torch mmengine mmcv mmdet mmseg mmpose scipy icconv_mm".split(): sys.modules[name] = None\n'
    'from icconv_mm_runtime.__main__ import main\n'
    'main(sys.argv[1:])\n'
)


@pytest.fixture(scope='module')
def weights(workspace):
    """Checkpoints of random weights, by config, whose scores are not all alike."""

    def make(name: str) -> str:
        run = apis.load_run(workspace.config(name))
        begin(run, purpose=Predicting())
        torch.manual_seed(0)
        model = run.build_model()
        for key, module in model.named_modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.7, 1.3)
            elif key.rpartition('.')[2] in ('fc_cls', 'rpn_cls', 'conv_logits', 'conv_seg'):
                module.weight.data.normal_(0, 0.3)
        path = workspace.root / f'{name.replace("/", "_")}.pth'
        torch.save({'state_dict': model.state_dict(), 'meta': {}}, path)
        return str(path)

    return make


@pytest.mark.slow
@pytest.mark.parametrize('to', ['onnx', 'openvino'])
def test_the_joint_network_leaves_as_one_file(workspace, weights, to, tmp_path, monkeypatch):
    if to == 'openvino':
        pytest.importorskip('openvino')
    file = tmp_path / {'onnx': 'net.onnx', 'openvino': 'net.xml'}[to]
    images = str(workspace.root / 'data/miniature/val')
    checkpoint, config = weights(JOINT), workspace.config(JOINT)
    report = apis.export(config, checkpoint, to=to, out=file, images=images)
    assert report['check']['missing'] == 0 and report['check']['masks'] <= 1e-5 and report['check']['boxes'] <= 1e-2
    assert report['layers'] == 12 and file.stat().st_size == report['bytes']
    assert sorted(path.suffix for path in tmp_path.iterdir()) == (['.onnx'] if to == 'onnx' else ['.bin', '.xml'])
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT_TORCH, str(file), images, '--out-dir', str(tmp_path / 'found')],
        capture_output=True,
        text=True,
        env={'PYTHONPATH': str(workspace.repo)},
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(workspace.root)
    for name, values in compare_metrics(apis.load_run(config), checkpoint, Session(file)).items():
        assert values['file'] == pytest.approx(values['model'], abs=1e-3), name
    apis.infer(config, checkpoint, images, str(tmp_path / 'known'), device='cpu', draw=False)
    for task in ('instance', 'semantic', 'pose'):
        records, expected = (
            json.loads((tmp_path / folder / f'predictions.{task}.json').read_text()) for folder in ('found', 'known')
        )
        assert len(records) == len(expected) and (records or task == 'pose')
        for one, other in zip(records, expected):
            assert one.keys() == other.keys() and one['image_id'] == other['image_id']
            for key in {'bbox', 'score', 'keypoints'} & one.keys():
                np.testing.assert_allclose(one[key], other[key], atol=1.1e-2 if key != 'score' else 2e-5)
            assert one.get('segmentation') == other.get('segmentation')
    assert len(list((tmp_path / 'found/vis').iterdir())) == 4
    require_equal_results(file, checkpoint, config, sorted(Path(images).iterdir())[0])


def require_equal_results(file, checkpoint, config, image):
    """``icconv_mm.load`` of the file and of its checkpoint return the same, but for the differences of the check."""
    result, expected = (icconv_mm.load(*source, device='cpu')(image) for source in ([file], [checkpoint, config]))
    assert result.tasks.keys() == expected.tasks.keys() and result.path == expected.path
    np.testing.assert_array_equal(result.image, expected.image)
    np.testing.assert_array_equal(result.seg_map, expected.seg_map)
    for name, task in result.descriptions.items():
        one, other = result.one(name), expected.one(name)
        assert one.names == other.names
        arrays = [name for name in ARRAYS if getattr(one, name) is not None]
        assert arrays == [name for name in ARRAYS if getattr(other, name) is not None]
        for array in arrays:
            assert getattr(one, array).dtype == getattr(other, array).dtype
        if task['kind'] != 'semantic':
            assert is_close(compared(task, result.tasks[name], expected.tasks[name]))
    assert result.plot().shape == expected.plot().shape


def test_metrics_of_a_file_are_those_of_what_it_finds(workspace, weights, monkeypatch):
    """A session that finds what the model finds, but for one image, where it finds nothing but the first class."""
    monkeypatch.chdir(workspace.root)
    checkpoint, config = weights(SEGMENTOR), workspace.config(SEGMENTOR)
    predictor = apis.Predictor(config, checkpoint, device='cpu')

    class Pretended:
        tasks = {'': {'kind': 'semantic'}}
        spoilt = None

        def predict(self, paths):
            for path, sample in predictor.predict(paths):
                seg_map = sample.pred_sem_seg.data[0].numpy() * (Path(path).name != self.spoilt)
                yield SimpleNamespace(tasks={'': {'seg_map': seg_map}})

    metrics = compare_metrics(apis.load_run(config), checkpoint, Pretended())
    assert metrics['mIoU']['file'] == metrics['mIoU']['model']
    Pretended.spoilt = sorted(Path('data/miniature/val').iterdir())[0].name
    metrics = compare_metrics(apis.load_run(config), checkpoint, Pretended())
    assert metrics['aAcc']['file'] != metrics['aAcc']['model']


@pytest.mark.slow
def test_eight_bits_say_what_they_cost(workspace, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(workspace.root)
    images, config, checkpoint = 'data/miniature/val', workspace.config(SEGMENTOR), weights(SEGMENTOR)
    report = apis.export(config, checkpoint, out=tmp_path / 'net.onnx', images=images, int8=images)
    assert set(report['metrics']['mIoU']) == {'model', 'file'}
    assert report['check'] == {'images': 4}
    monkeypatch.chdir(tmp_path)  # where there are no labels
    images = str(workspace.root / images)
    report = apis.export(config, checkpoint, out=tmp_path / 'net.onnx', images=images, int8=images)
    assert report['metrics'].startswith('not measured: ') and 'data/miniature' in report['metrics']


@pytest.mark.slow
@pytest.mark.parametrize(('to', 'weights_of'), [('onnx', 'net.onnx'), ('openvino', 'net.bin')])
def test_a_file_in_float16_is_half_as_large_and_finds_nearly_the_same(workspace, weights, to, weights_of, tmp_path):
    if to == 'openvino':
        pytest.importorskip('openvino')
    images, config, checkpoint = (
        str(workspace.root / 'data/miniature/val'),
        workspace.config(SEGMENTOR),
        weights(SEGMENTOR),
    )
    sizes = {}
    for half in (False, True):
        out = tmp_path / f'{half}' / ('net.onnx' if to == 'onnx' else 'net.xml')
        report = apis.export(config, checkpoint, to, out, images=images, half=half)
        assert report['check']['seg_map'] <= 1e-5 and report.get('float32_layers') == (0 if half else None)
        sizes[half] = out.with_name(weights_of).stat().st_size
    assert sizes[True] < 0.55 * sizes[False]


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'operator'), [(JOINT, True), (SEGMENTOR, False)])
def test_machine_code_finds_the_same(workspace, weights, name, operator, tmp_path):
    images = str(workspace.root / 'data/miniature/val')
    options = dict(to='pt2', out=tmp_path / 'net.pt2', images=images, operator=operator)
    check = apis.export(workspace.config(name), weights(name), **options)['check']
    assert check['images'] == 4 and check['seg_map'] <= 1e-5 and check.get('missing', 0) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'operators'),
    [
        (CLASSIFIER, []),
        (SEGMENTOR, []),
        (POSE, []),
        (DETECTOR, ['icconv_mm::export_nms_mask', 'icconv_mm::export_roi_features']),
    ],
)
def test_a_program_finds_the_same(workspace, weights, name, operators, tmp_path):
    images, file = str(workspace.root / 'data/miniature/val'), tmp_path / 'net.pt2'
    report = apis.export(workspace.config(name), weights(name), to='program', out=file, images=images)
    assert report['check']['images'] == 4 and report['check'].get('missing', 0) == 0
    assert report['operators'] == operators
    texts = {KEY: ''}
    torch.export.load(file, extra_files=texts)
    description = json.loads(texts[KEY])
    check_metadata(description, str(file))
    assert description['check'] == report['check']


@pytest.mark.slow
def test_a_program_without_decoding_needs_torch_alone(workspace, weights, tmp_path):
    """Also with other numbers of images and other sizes than the example's."""
    file, config = tmp_path / 'net.pt2', workspace.config(SEGMENTOR)
    apis.export(config, weights(SEGMENTOR), to='program', out=file, images=str(workspace.root / 'data/miniature/val'))
    network, _ = described(apis.Predictor(config, weights(SEGMENTOR), device='cpu'), config, weights(SEGMENTOR))
    image, size = torch.randint(256, (3, 3, 64, 96)).float(), torch.tensor([[50.0, 90.0, 1.0, 1.0]] * 3)
    with torch.no_grad():
        torch.save({'args': ([image], size), 'known': network([image], size)}, tmp_path / 'calls.pth')
    code = (
        'import sys, torch\n'
        'sys.modules["icconv_mm"] = None\n'
        'calls = torch.load("calls.pth")\n'
        'found = torch.export.load("net.pt2").module()(*calls["args"])\n'
        'for one, other in zip(found, calls["known"], strict=True):\n'
        '    torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))\n'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('name', [SEGMENTOR, DETECTOR, JOINT])
def test_a_file_of_a_larger_size_finds_what_the_model_finds_in_padded_images(workspace, weights, name, tmp_path):
    file, images = tmp_path / 'net.onnx', str(workspace.root / 'data/miniature/val')
    report = apis.export(workspace.config(name), weights(name), out=file, images=images, fixed=(160, 192))
    assert report['check']['images'] == 4
    assert Session(file).metadata['batch']['fixed'] == [160, 192]


@pytest.mark.slow
@pytest.mark.parametrize('name', [SEGMENTOR, DETECTOR, POSE])
def test_a_file_of_a_fixed_batch_has_constant_sizes_alone(workspace, weights, name, tmp_path):
    onnx = pytest.importorskip('onnx')
    file, images = tmp_path / 'net.onnx', str(workspace.root / 'data/miniature/val')
    report = apis.export(workspace.config(name), weights(name), out=file, images=images, fixed=(1, 128, 128))
    assert report['check']['images'] == 4
    graph = onnx.load(str(file)).graph
    bound_by_content = {'RoiAlign', 'NonMaxSuppression'} & {node.op_type for node in graph.node}
    assert bool(bound_by_content) == (name == DETECTOR)  # as many boxes as are kept
    assert bound_by_content or 'Shape' not in {node.op_type for node in graph.node}
    assert not [value.name for value in graph.initializer if value.data_type == onnx.TensorProto.BOOL]
    for value in (*graph.input, *graph.output):
        assert all(dim.dim_value for dim in value.type.tensor_type.shape.dim), value.name
    paths = sorted(map(str, Path(images).iterdir()))
    assert [prediction.path for prediction in Session(file).predict(paths, batch_size=2)] == paths


def test_people_of_equal_maps_differ_by_rounding_alone(workspace, weights):
    """Poses that differ are a tie where the file's maps are the model's, and a fault where they are not."""
    loaded = apis.load_run(workspace.config(POSE))
    predictor = apis.Predictor(loaded, weights(POSE), device='cpu')
    parts = predictor.task.parts(predictor.dataset_meta)
    network, description = describe(predictor.model, parts, loaded.inference_transforms(), None, weights(POSE))

    def run(arrays, error=0.0):
        images = [torch.from_numpy(array) for name, array in arrays.items() if name.startswith('image')]
        with torch.no_grad():
            outputs = network(images, *(torch.from_numpy(arrays[name]) for name in ('size',) if name in arrays))
        tensors = {name: output.numpy() for name, output in zip(network.names, outputs)}
        return {**tensors, 'tags': tensors['tags'] + error}

    image = str(min((workspace.root / 'data/miniature/val').iterdir()))
    disturbed = Session.of(description, partial(run, error=1e-3), '')
    model = exporting.compared_model(predictor)
    assert is_tie(model, Session.of(description, run, ''), [Path(image)], LIMITS, image, '')
    assert not is_tie(model, disturbed, [Path(image)], LIMITS, image, '')


def test_a_file_that_differs_is_not_written(workspace, weights, tmp_path, monkeypatch):
    """A segmentor whose file is given other weights than the model."""
    from icconv_mm.app.export import run as module

    captured = module.capture

    def disturbed(network, *args, **options):
        network.model.decode_head.conv_seg.bias.data += torch.arange(7.0)
        return captured(network, *args, **options)

    monkeypatch.setattr(module, 'capture', disturbed)
    images = str(workspace.root / 'data/miniature/val')
    with pytest.raises(InputError, match=r'seg_map by .* \(limit 1e-05\) on .*; nothing is written'):
        apis.export(workspace.config(SEGMENTOR), weights(SEGMENTOR), **SQUARE, out=tmp_path / 'net.onnx', images=images)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'to': 'tflite'}, 'to: there is no format tflite'),
        ({'out': 'net.pth'}, 'expected a name that ends in .onnx, got net.pth'),
        ({'to': 'pt2', 'int8': '.'}, "int8: expected to='onnx' or 'openvino', got 'pt2'"),
        ({'to': 'program', 'int8': '.'}, "int8: expected to='onnx' or 'openvino', got 'program'"),
        ({'to': 'program', 'half': True}, "half: expected to='onnx' or 'openvino', got 'program'"),
        ({'half': True, 'int8': '.'}, 'half: int8 is given as well: choose one of the two'),
        ({'operator': True}, "operator: expected to='pt2', got 'onnx'"),
        ({'to': 'program', 'operator': True, 'out': 'net.pt2'}, "operator: expected to='pt2', got 'program'"),
        ({'images': 'nowhere'}, 'nowhere'),
        ({'fixed': (2, 64, 64)}, 'net.onnx: its metadata: batch.count must be a whole number from 1 to 1, got 2'),
        ({'fixed': (40_000, 64)}, 'net.onnx: its metadata: batch.fixed.0 must be a whole number from 1 to 32766'),
        (
            {'changes': {'model.test_cfg': {'mode': 'slide', 'crop_size': (64, 64), 'stride': (32, 32)}}},
            "'slide' cannot",
        ),
        ({'changes': {'test_dataloader.dataset.pipeline.1.type': 'RandomResize'}}, 'RandomResize cannot be exported'),
        (
            {'changes': {'test_dataloader.dataset.pipeline': [{'type': 'LoadImageFromFile'}, AUGMENTED]}},
            'TestTimeAug cannot be exported; transforms that can are Resize',
        ),
        ({'checkpoint': 'absent.pth'}, 'no such file'),
        ({'out': '/proc/net.onnx'}, '/proc/net.onnx'),
    ],
)
def test_what_cannot_be_exported(workspace, weights, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {'images': str(workspace.root / 'data/miniature/val'), **options}
    cfg = apis.load_config(workspace.config(SEGMENTOR), options.pop('changes', {}))
    checkpoint = options.pop('checkpoint', None) or weights(SEGMENTOR)
    with pytest.raises(InputError) as error:
        apis.export(
            cfg, checkpoint, **{'out': 'net.onnx' if options.keys().isdisjoint(('int8', 'half')) else None, **options}
        )
    assert message in str(error.value) and '\n' not in str(error.value)
    assert not list(tmp_path.iterdir())


def unusual(path, change):
    """A checkpoint with changed weights, beside the original."""
    content = torch.load(path)
    change(content['state_dict'])
    changed = f'{path}.changed.pth'
    torch.save(content, changed)
    return changed


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda state: state.pop('decode_head.conv_seg.bias'), 'does not fit EncoderDecoder, nothing was loaded'),
        (
            lambda state: state['decode_head.conv_seg.bias'].fill_(float('nan')),
            r'decode_head\.conv_seg\.bias has values that are not finite',
        ),
    ],
    ids=['missing', 'not finite'],
)
def test_weights_that_cannot_be_exported(workspace, weights, change, message, tmp_path):
    images = str(workspace.root / 'data/miniature/val')
    checkpoint = unusual(weights(SEGMENTOR), change)
    with pytest.raises(InputError, match=message):
        apis.export(workspace.config(SEGMENTOR), checkpoint, **SQUARE, out=tmp_path / 'net.onnx', images=images)
    assert not list(tmp_path.iterdir())


def test_a_runtime_that_is_missing(workspace, weights, monkeypatch, tmp_path):
    version_of = metadata.version

    def version(name):
        if name == 'onnxruntime':
            raise metadata.PackageNotFoundError
        return version_of(name)

    monkeypatch.setattr(metadata, 'version', version)
    with pytest.raises(MissingLibraryError, match="to='onnx' needs onnxruntime, which is not installed: pip install"):
        apis.export(workspace.config(SEGMENTOR), weights(SEGMENTOR), out=tmp_path / 'net.onnx')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('recipe', 'message'),
    [
        ('detection/dino-4scale_ic-r50-k9_8xb2-12e_coco.py', 'model.bbox_head: DINOHead cannot be exported; those'),
        (
            'instance_segmentation/mask2former_ic-r50-k9-seg_8xb2-lsj-50e_coco.py',
            'model.panoptic_head: Mask2FormerHead cannot be exported; those that can are RetinaHead',
        ),
        (
            'pose/dekr_ic-r50-k13_8xb10-140e_coco-512x512.py',
            'model.head: DEKRHead of BottomupPoseEstimator cannot be exported; of mmpose, AEHead',
        ),
    ],
)
def test_heads_that_are_not_covered(workspace, recipe, message):
    run = apis.load_run(workspace.config(recipe), {'model.backbone.pattern': 'geometric_d4'})
    begin(run, purpose=Predicting())
    with pytest.raises(InputError) as error:
        Exported(run.build_model(), {'': {}}, scales=[1])
    assert message in str(error.value) and '\n' not in str(error.value)


def described(predictor, name, weights):
    """The network and the description of its file."""
    parts = predictor.task.parts(predictor.dataset_meta)
    return describe(predictor.model, parts, apis.load_run(name).inference_transforms(), None, weights)


def in_process(predictor, name, weights):
    """A session whose network runs in torch, as an exported file would."""
    network, description = described(predictor, name, weights)

    def run(arrays):
        images = [torch.from_numpy(array) for key, array in arrays.items() if key.startswith('image')]
        with torch.no_grad():
            outputs = network(images, *(torch.from_numpy(arrays[key]) for key in ('size',) if key in arrays))
        return {key: output.numpy() for key, output in zip(network.names, outputs)}

    return Session.of(description, run, 'net')


@pytest.mark.parametrize('recipe', [DETECTOR, SEGMENTOR])
def test_file_and_model_get_equal_batches(workspace, weights, recipe, tmp_path):
    """A detector fills up batches of images that differ in size, and finds other boxes for it; mmseg takes no such."""
    config, checkpoint = workspace.config(recipe), weights(recipe)
    for number, (height, width) in enumerate([(128, 40), (40, 128), (128, 40), (96, 96)]):
        image = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f'{number}.png'), image)
    predictor = apis.Predictor(config, checkpoint, device='cpu')
    session = in_process(predictor, config, checkpoint)
    counts, run = [], session.run
    session.run = lambda arrays: counts.append(len(arrays['image'])) or run(arrays)
    check, _ = check_file(exporting.compared_model(predictor), session, sorted(tmp_path.iterdir()), limits=LIMITS)
    assert check['images'] == 4 and check.get('missing', 0) == 0
    assert counts == [1, 1, 1, 1, *([2, 2] if recipe == DETECTOR else [1, 1, 2])]


@pytest.mark.slow
@pytest.mark.parametrize('name', [DETECTOR, SEGMENTOR])
def test_tiles_are_those_of_the_model(workspace, weights, name, tmp_path):
    from icconv_mm_runtime.__main__ import main

    images, checkpoint, config = str(workspace.root / 'data/miniature/val'), weights(name), workspace.config(name)
    file = tmp_path / 'net.onnx'
    apis.export(config, checkpoint, out=file, images=images)
    main([str(file), images, '--out-dir', str(tmp_path / 'found'), '--no-draw', '--tile', '80', '--batch-size', '3'])
    apis.infer(config, checkpoint, images, str(tmp_path / 'known'), device='cpu', draw=False, tile=80)
    records, expected = (
        json.loads((tmp_path / folder / 'predictions.json').read_text()) for folder in ('found', 'known')
    )
    assert len(records) == len(expected) > 4
    for one, other in zip(records, expected):
        assert (one['image_id'], one['category_id']) == (other['image_id'], other['category_id'])
        assert one.get('segmentation') == other.get('segmentation')
        for key in {'bbox', 'score'} & one.keys():
            np.testing.assert_allclose(one[key], other[key], atol=1.1e-2 if key == 'bbox' else 2e-5)
