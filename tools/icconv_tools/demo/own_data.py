"""The config to start from with one's own data."""

from pathlib import Path

from rich.console import Console

from icconv_tools import HOME

_CONFIG = 'configs/multitask/multitask_ic-r18_fpn_miniature.py'
_TEMPLATE = """# One network with an IC-ResNet-18 on your own data: fill in the first lines. None in the place of a pair
# of files or folders, for training and validation, leaves its task out.
data_root = 'path/to/your/data/'
pictures = ('train/', 'val/')  # below data_root, as the others
instances = ('annotations/instances_train.json', 'annotations/instances_val.json')  # COCO: boxes and masks
classes = ('person', 'ball')  # the names in that file's "categories" that you want to find
label_maps = ('semantic/train/', 'semantic/val/')  # NAME.png for NAME.jpg: a class from 0 on per pixel, 255 is ignored
label_classes = ('background', 'person', 'ball')
people = ('annotations/person_keypoints_train.json', 'annotations/person_keypoints_val.json')  # COCO: 17 keypoints

_base_ = ['{base}']

labels = dict(instance=instances, semantic=label_maps, pose=people)
kept = [name for name in labels if labels[name]]
tasks = _base_.model.tasks
tasks.instance.roi_head.bbox_head.num_classes = tasks.instance.roi_head.mask_head.num_classes = len(classes)
tasks.semantic.decode_head.num_classes = len(label_classes)
tasks.semantic.decode_head.loss_decode = dict(type='CrossEntropyLoss', avg_non_ignore=True)
model = dict(
    data_preprocessor=dict(seg_pad_val=255),
    tasks=dict(_delete_=True, **dict((name, tasks[name]) for name in kept)),
    loss_weights=dict(_delete_=True, **dict((k, v) for k, v in _base_.model.loss_weights.items() if k in kept)))

sets = [
    dict(
        instance=dict(
            type='mmdet.CocoDataset', data_root=data_root, ann_file=(instances or pictures)[i],
            data_prefix=dict(img=pictures[i]), metainfo=dict(classes=classes), filter_cfg=dict(filter_empty_gt=False)),
        semantic=dict(
            type='mmseg.BaseSegDataset', data_root=data_root, metainfo=dict(classes=label_classes),
            data_prefix=dict(img_path=pictures[i], seg_map_path=(label_maps or pictures)[i])),
        pose=dict(
            type='icconv_mm.BottomupCocoDataset', keep_empty=True, data_root=data_root,
            ann_file=(people or pictures)[i], data_prefix=dict(img=pictures[i])),
    )
    for i in (0, 1)
]
train_dataloader = dict(dataset=dict(datasets=dict(_delete_=True, **dict((name, sets[0][name]) for name in kept))))
val_dataloader = dict(dataset=dict(datasets=dict(_delete_=True, **dict((name, sets[1][name]) for name in kept))))
test_dataloader = val_dataloader

val_evaluator = [each for each in _base_.val_evaluator if each.task in kept]
for each in val_evaluator:
    if 'ann_file' in each.metric:
        each.metric.ann_file = data_root + labels[each.task][1]
test_evaluator = val_evaluator
"""


def write_own_data_config(folder: Path) -> Path:
    """``own_data.py`` below ``folder``: written if it is not there yet, as it may have been filled in."""
    path = folder / 'own_data.py'
    if not path.exists():
        path.write_text(_TEMPLATE.format(base=(HOME / _CONFIG).resolve()))
    return path


def print_own_data(config: Path, console: Console) -> None:
    """Print how to do the same with one's own data, as ``config`` says."""
    tools, work = _shown(HOME / 'tools'), config.parent / 'own_data'
    checkpoint = f'$(cat {work}/last_checkpoint)'
    console.out(
        f'\nThe same on your own data, COCO files and label maps:\n'
        f'  1. name its folder, files and classes in {config}\n'
        f'  2. python {tools}/train.py {config} --work-dir {work}\n'
        f'  3. python {tools}/test.py {config} {checkpoint} --work-dir {work}\n'
        f'  4. python {tools}/infer.py {config} {checkpoint} YOUR_PICTURES --out-dir {work}/drawn',
        highlight=False,
    )


def _shown(path: Path) -> Path:
    """``path`` from the current folder if it is below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
