"""The config to start from with one's own data."""

from pathlib import Path

from rich.console import Console

_CONFIG = 'configs/instance_segmentation/mask-rcnn_ic-r18_fpn_miniature.py'
_TEMPLATE = """# Mask R-CNN with an IC-ResNet-18 on your own COCO-format data: fill in the first six lines.
data_root = 'path/to/your/data/'
train_annotations = 'annotations/instances_train.json'  # below data_root, as the others
val_annotations = 'annotations/instances_val.json'
train_pictures = 'train/'
val_pictures = 'val/'
classes = ('person', 'ball')  # the names in the annotation file's "categories" that you want to find

_base_ = ['{base}']

heads = dict(num_classes=len(classes))
model = dict(roi_head=dict(bbox_head=heads, mask_head=heads))
train_dataloader = dict(dataset=dict(
    data_root=data_root, ann_file=train_annotations, data_prefix=dict(img=train_pictures),
    metainfo=dict(_delete_=True, classes=classes)))
val_dataloader = dict(dataset=dict(
    data_root=data_root, ann_file=val_annotations, data_prefix=dict(img=val_pictures),
    metainfo=dict(_delete_=True, classes=classes)))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + val_annotations)
test_evaluator = val_evaluator
"""


def write_own_data_config(home: Path, folder: Path) -> Path:
    """``own_data.py`` below ``folder``: written if it is not there yet, as it may have been filled in.

    ``home`` is the folder that holds ``configs/``.
    """
    path = folder / 'own_data.py'
    if not path.exists():
        path.write_text(_TEMPLATE.format(base=(home / _CONFIG).resolve()))
    return path


def print_own_data(home: Path, config: Path, console: Console) -> None:
    """Print how to do the same with one's own data, as ``config`` says."""
    tools, work = _shown(home / 'tools'), config.parent / 'own_data'
    checkpoint = f'$(cat {work}/last_checkpoint)'
    console.out(
        f'\nThe same on your own COCO-format data:\n'
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
