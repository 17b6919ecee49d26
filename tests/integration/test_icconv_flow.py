"""From images to predictions by the command ``icconv`` alone, each a process of its own."""

import json
import sys
from pathlib import Path

import labelled
import pytest

import icconv_mm

pytestmark = pytest.mark.slow


def test_training_test_and_predictions(workspace, tmp_path):
    """No config is named: the training wrote it beside the checkpoint. The run is moved after the training."""
    pytest.importorskip('mmdet')

    def icconv(*words):
        return workspace.run(sys.executable, '-m', 'icconv_mm', *words).stdout

    project = tmp_path / 'project'
    labelled.voc(project / 'data')
    run = project / 'runs' / 'voc'
    options = ['--backbone', 'ic_resnet18', '--pretrained', 'none', '--epochs', '1', '--size', '64']
    icconv('train', project / 'data', '--task', 'detection', *options, '--work-dir', run)
    checkpoint = run.rename(tmp_path / 'moved') / 'epoch_1.pth'
    before = {path.name: path.read_bytes() for path in checkpoint.parent.glob('*.py')}
    said = icconv('test', checkpoint)
    assert f'config: {checkpoint.with_name("voc.py")}' in said and 'coco/bbox_mAP' in said
    assert {path.name: path.read_bytes() for path in checkpoint.parent.glob('*.py')} == before
    images = sorted((project / 'data').rglob('*.png'))[:1]
    out = project / 'found'
    assert str(out / 'predictions.json') in icconv('predict', checkpoint, images[0], '--out-dir', out)
    records = json.loads(Path(out, 'predictions.json').read_text())
    assert records and icconv_mm.load(checkpoint)(images[0]).to_coco() == records
