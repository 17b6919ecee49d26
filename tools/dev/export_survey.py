"""Export recipes of configs/ with random weights, check each file, and print what became of them as a table.

Backbones have one block in each stage and images are small: neither decides whether a recipe exports. Scores are
spread and thresholds lowered, so that there is something to compare.

Examples:
  python tools/dev/export_survey.py images/
  python tools/dev/export_survey.py images/ configs/pose/ae_ic-r18_miniature.py --to openvino
"""

import copy
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from icconv_mm import apis
from icconv_mm.app.commands import command_line
from icconv_mm.app.export.writers import FORMATS
from icconv_mm.app.runs.begin import TaskRun, begin
from icconv_mm.app.runs.prepare import Predicting
from icconv_mm.backbones import ResNet
from icconv_mm.config_tree import kind_of, walk_dicts
from icconv_mm.errors import UserError, message_of

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SIZE = 480, 288  # of images, in place of what a recipe resizes to; SEPC needs 257 pixels a side
LAST = {'retina_cls', 'atss_cls', 'rtm_cls', 'fc_cls', 'rpn_cls', 'conv_cls', 'conv_logits', 'conv_seg', 'final_layer'}


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument('images', help='a folder of a few images')
    parser.add_argument('recipes', nargs='*', type=Path, metavar='CONFIG', help='default: all')
    formats = tuple(FORMATS)
    parser.add_argument('--to', choices=formats, default='onnx', help='format; default: onnx')
    args = parser.parse_args(argv)
    print('| recipe | largest differences, or the reason |\n|---|---|')
    with short_backbones():
        for path in args.recipes or sorted(CONFIGS.glob('[!_]*/*.py')):
            print(f'| `{path.parent.name}/{path.stem}` | {_outcome(path, args.images, args.to)} |', flush=True)


@contextmanager
def short_backbones() -> Iterator[None]:
    """Gives the stages of the backbones one block each, within a `with`."""
    with ExitStack() as stack:
        for kind in (ResNet, *ResNet.__subclasses__()):
            short = {depth: (block, (1, 1, 1, 1)) for depth, (block, _) in kind.arch_settings.items()}
            stack.enter_context(mock.patch.object(kind, 'arch_settings', short))
        yield


def _outcome(path: Path, images: str, to: str) -> str:
    """The check of the file, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, file = f'{folder}/weights.pth', Path(folder, f'network{FORMATS[to].suffix}')
        try:
            run = apis.load_run(path)
            make_small(run, SIZE)
            save_random(copy.deepcopy(run), checkpoint)
            check = apis.export(run, checkpoint, to, file, images=images)['check']
        except UserError as error:
            return message_of(error)
    return ', '.join(f'{kind} {value:.2g}' for kind, value in check.items())


def make_small(run: TaskRun, size: tuple[int, int]) -> None:
    """Sets images of a size (width, height), patterns at hand, and thresholds that let random scores pass, in place."""
    for node in walk_dicts(run.cfg):
        for key, value in list(node.items()):
            if key in ('score_thr', 'detection_threshold'):
                node[key] = 0.0
            elif key in ('max_per_img', 'nms_pre') and value > 0:
                node[key] = min(value, 100)
            elif key == 'pattern' and value is not None:
                node[key] = 'geometric_d4'
    for transform in run.inference_transforms():
        if kind_of(transform) == 'Resize':
            transform['scale'] = size
        elif kind_of(transform) in ('MultiScaleResize', 'BottomupResize'):
            transform['input_size'] = (size[1], size[1])


def save_random(run: TaskRun, checkpoint: str) -> None:
    """A checkpoint whose scores are not all alike."""
    begin(run, purpose=Predicting())
    torch.manual_seed(0)
    model = run.build_model()
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.7, 1.3)
        elif isinstance(module, nn.Conv2d | nn.Linear) and set(name.split('.')[-2:]) & LAST:
            module.weight.data.normal_(0, 0.5 / module.weight[0].numel() ** 0.5)
            module.bias.data.zero_()
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, checkpoint)


if __name__ == '__main__':
    main()
