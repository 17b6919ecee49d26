"""The report of a training by its config's name, and what uses its thresholds."""

import json
from pathlib import Path

import pytest
from workspaces import DETECTION, INSTANCE, SEMANTIC, short

pytestmark = pytest.mark.slow
POSE = 'pose/ae_ic-r18_miniature.py'
ALL = 'multitask/multitask_ic-r18_fpn_miniature.py'


@pytest.mark.parametrize(
    ('config', 'kinds'),
    [
        (DETECTION, {'': 'detection'}),
        (INSTANCE, {'': 'instance'}),
        (SEMANTIC, {'': 'semantic'}),
        (POSE, {'': 'pose'}),
        (ALL, {'instance': 'instance', 'semantic': 'semantic', 'pose': 'pose'}),
    ],
)
def test_a_config_by_its_name(workspace, config, kinds):
    """A training of each task, then a test: both write the page with every task of the network."""
    path = next(workspace.repo.glob(f'configs/**/{Path(config).name}'))
    folder = workspace.root / 'runs' / f'report_{path.stem}'
    assert workspace.tool('train', path, '--work-dir', folder, *short(4)) is None
    stored = json.loads((folder / 'report.json').read_text())
    assert {name: task['kind'] for name, task in stored['tasks'].items()} == kinds and stored['images'] == 'validation'
    assert workspace.tool('test', path, folder / 'iter_4.pth', '--work-dir', folder) is None
    (tested,) = folder.glob('*/report/report.json')
    again = json.loads(tested.read_text())
    assert again['images'] == 'test' and (tested.parent / 'report.html').is_file()
    if config != ALL:  # whose tasks share a validation set
        assert again['tasks'].keys() == stored['tasks'].keys()
    for name, task in stored['tasks'].items():  # the same images: 4
        assert again['tasks'][name]['metrics'] == pytest.approx(task['metrics'], abs=1e-6, nan_ok=True)


def test_thresholds_reach_drawings_and_exported_files(workspace, detector, tmp_path):
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    from icconv_mm.apis import Predictor, export
    from icconv_mm_runtime import Session

    folder, config = Path(detector).parent, workspace.config(DETECTION)
    before = (folder / 'report.json').read_text()
    stored = json.loads(before)
    names = stored['tasks']['']['classes']
    stored['tasks']['']['thresholds'] = [0.25, None, *[0.5] * (len(names) - 2)]
    (folder / 'report.json').write_text(json.dumps(stored))
    try:
        predictor = Predictor(config, detector, device='cpu')
        assert predictor.task.described(predictor.dataset_meta)['thresholds'] == stored['tasks']['']['thresholds']
        images = workspace.root / 'data/miniature/val'
        export(config, detector, out=tmp_path / 'network.onnx', images=images)
        assert Session(tmp_path / 'network.onnx').tasks['']['thresholds'] == stored['tasks']['']['thresholds']
    finally:
        (folder / 'report.json').write_text(before)
