"""Stand-ins for the tools that the demo runs: they write at once what the real ones write.

The value of every metric comes from ``metrics.json`` beside them.
"""

import json
import textwrap
from io import StringIO
from pathlib import Path

from rich.console import Console

from icconv_tools.demo import DemoOptions, run_demo
from icconv_tools.miniature import MiniatureOptions

DRAWING = MiniatureOptions(train=8, val=4, size=64)
SEPARATE = ('detection', 'instance', 'semantic', 'pose')

_TRAIN = """
    import json, sys
    from pathlib import Path
    work = Path(sys.argv[sys.argv.index('--work-dir') + 1])
    (work / 'now/vis_data').mkdir(parents=True)
    with (work / 'now/vis_data/scalars.json').open('w') as file:
        for i in (10, 20):
            line = f'Iter(train) [{i}/20]  lr: 1e-3  loss: {5 / i:.4f}  loss_cls: 0.1'
            print(f'11/20 08:00:00 - mmengine - INFO - {line}')
            file.write(json.dumps({'lr': 1e-3, 'loss': 5 / i, 'loss_cls': 0.1, 'time': 0.5, 'step': i}) + '\\n')
    (work / 'iter_20.pth').touch()
    (work / 'last_checkpoint').write_text(str(work / 'iter_20.pth'))
"""
_TEST = """
    import json, sys
    from pathlib import Path
    import cv2, numpy as np
    assert Path(sys.argv[2]).is_file()
    print(sys.argv)
    work = Path(sys.argv[sys.argv.index('--work-dir') + 1])
    (work / 'now').mkdir(parents=True)
    metrics = json.loads((Path(__file__).parent / 'metrics.json').read_text())
    part = {'coco/bbox_mAP_50': 'instance', 'coco/segm_mAP_50': 'instance', 'mIoU': 'semantic', 'coco/AP .5': 'pose'}
    metrics |= {f'{part[key]}/{key}': value for key, value in metrics.items()}
    (work / 'now/now.json').write_text(json.dumps(metrics))
    labels = work.parent / 'labels'
    labels.mkdir(exist_ok=True)
    (work.parent / 'results.keypoints.json').write_text('[]')
    for i in range(1, 5):
        cv2.imwrite(str(labels / f'{i:06d}.png'), np.full((64, 64), i, np.uint8))
"""
_EXPORT = """
    import json, sys
    from pathlib import Path
    assert Path(sys.argv[2]).is_file()
    file = Path(sys.argv[sys.argv.index('--out') + 1])
    file.write_bytes(bytes(1 << 20))
    times = {'file': 20.0, 'model': 40.0}
    print(json.dumps({'file': str(file), 'bytes': 1 << 20, 'milliseconds': times, 'check': {'boxes': 1e-5}}, indent=2))
"""
GOOD = {'coco/bbox_mAP_50': 0.81, 'coco/segm_mAP_50': 0.61234, 'mIoU': 72.5, 'coco/AP .5': 0.45}


def pretend(folder: Path, repo: Path) -> Path:
    """Make ``folder`` a checkout whose tools only pretend."""
    (folder / 'tools').mkdir(parents=True)
    (folder / 'configs').symlink_to(repo / 'configs')
    (folder / 'tools/train.py').write_text(textwrap.dedent(_TRAIN))
    (folder / 'tools/test.py').write_text(textwrap.dedent(_TEST))
    (folder / 'tools/export.py').write_text(textwrap.dedent(_EXPORT))
    (folder / 'tools/metrics.json').write_text(json.dumps(GOOD))
    return folder


def use_home(monkeypatch, home: Path) -> None:
    """Let the demo take its configs and tools from a folder."""
    for module in ('configs', 'pipeline'):
        monkeypatch.setattr(f'icconv_tools.demo.{module}.HOME', home)


def run(data: Path, tmp_path: Path, **options) -> tuple[list, str]:
    """The demo's results and what it printed; its files go to ``tmp_path/work``."""
    out = StringIO()
    options = DemoOptions(data=data, work_dir=tmp_path / 'work', drawing=DRAWING, **options)
    return run_demo(options, Console(file=out, width=150)), out.getvalue()
