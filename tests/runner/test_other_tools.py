"""Options of other tools: the error says what to write here, and that is true."""

import re

import pytest
from reference import REPO

from icconv_mm.runner import command_line
from icconv_mm.runner.config import check_options, load_config
from icconv_mm.runner.other_tools import _HERE

TRAIN = 'detection/faster-rcnn_ic-r50-k9_fpn_1x_coco'
CLASSIFIER = 'classification/ic-resnet50-k9_8xb32_in1k'


def refused(capsys, arguments):
    """What a tool with a config says."""
    parser = command_line.parser('A tool.')
    command_line.add_config(parser)
    command_line.add_work_dir(parser)
    with pytest.raises(SystemExit, match='2'):
        parser.parse_args(arguments.split())
    return capsys.readouterr().err


def test_the_command_of_fpts_authors(capsys):
    text = refused(
        capsys,
        '--dataset coco2017 --cfg configs/e2e.yaml --bs 16 --nw 4 --lr=0.05 --no_save --load_detectron R-50.pkl '
        '--iter_size 2 --use_tfboard',
    )
    lines = dict(line.split(': ', 1) for line in text.splitlines() if line.startswith('--'))
    assert list(lines) == [
        *('--dataset', '--cfg', '--bs', '--nw', '--lr', '--no_save', '--load_detectron', '--iter_size', '--use_tfboard')
    ]
    assert lines['--lr'] == 'write --cfg-options optim_wrapper.optimizer.lr=RATE'
    assert lines['--cfg'] == 'the config is the first argument and has no option'
    assert 'train_dataloader.batch_size=N' in lines['--bs']


def test_an_option_written_otherwise(capsys):
    assert '\n--work_dir: write --work-dir\n' in refused(capsys, 'config.py --work_dir here')
    assert '\n--workdir: did you mean --work-dir?\n' in refused(capsys, 'config.py --workdir=here')


@pytest.mark.parametrize('key', sorted({key for text in _HERE.values() for key in re.findall(r'([\w.]+\.\w+)=', text)}))
def test_a_key_of_the_table_is_read(key):
    recipe = CLASSIFIER if key.startswith('model.head') else TRAIN
    check_options(load_config(str(REPO / f'configs/{recipe}.py')), {key: 1})
