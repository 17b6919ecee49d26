"""Train one config of each family that the installed libraries ship for a step: as it is, then with our backbones."""

import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import torch
from compatibility import ONE_LINE, Case, _sentence, swaps
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope

sys.path.append(str(Path(__file__).parents[1] / 'tests/support'))  # the batches of random annotated pictures
from config_utils import classes_of, make_batch, shrink

LIBRARIES = ('mmdet', 'mmseg')  # those whose families are configs of one task, which random pictures can be made for
MARK = '<!-- made by scripts/compatibility.py --train from here on -->\n'
TRIES = 3  # configs of a family, until one trains as it is shipped
SIZES = (64, 128)  # of the pictures, in pixels: some heads need more than the first
SWAPS = ('IC', 'PyConv')
DEPTHS = ('18', '34', '50', '101', '152')


def find_families(library: str) -> dict[str, list[Path]]:
    """The configs of each folder that a library ships, those of the smallest depth first."""
    root = _root(library)
    families: dict[str, list[Path]] = {}
    for path in sorted(root.rglob('*.py'), key=lambda path: (_depth(path), path)):
        parts = path.relative_to(root).parts
        if '_base_' not in parts:
            families.setdefault(parts[0], []).append(path)
    return dict(sorted(families.items()))


def check_family(library: str, paths: list[Path]) -> dict[str, str] | None:
    """Trains the first of at most three configs of a family that trains as it is, then the same with our backbones.

    Args:
        library: Its import name.
        paths: The configs of the family, in the order in which they are tried.

    Returns:
        The config, and under 'original', 'IC' and 'PyConv' what was raised ('' where the model trained and
        predicted); without the last two where no original trained. None without a config that has a backbone of ours.
    """
    row = None
    for path, cfg in _candidates(library, paths):
        name = path.relative_to(_root(library)).as_posix()
        for size in SIZES:
            error = _try(library, cfg, cfg.model.backbone, size)
            if not error:
                row = {'config': name, 'original': ''}
                ours = dict(swaps(Case(library, name, dict(cfg.model.backbone))))
                return row | {swap: _try(library, cfg, ours[swap], size) for swap in SWAPS}
            row = row or {'config': name, 'original': error}
    return row


def check_families(library: str, cache: Path) -> dict[str, dict]:
    """The rows of all families of a library; each is kept in a file once it is known, and not tried again.

    Args:
        library: Its import name.
        cache: A JSON file, of rows by family by library.
    """
    importlib.import_module(f'{library}.models')
    for family, paths in find_families(library).items():
        known = json.loads(cache.read_text()) if cache.exists() else {}
        rows = known.setdefault(library, {})
        if family not in rows:
            rows[family] = check_family(library, paths)
            print(library, family, rows[family], flush=True)
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.write_text(json.dumps(known, indent=1))
    rows = json.loads(cache.read_text())[library]
    return {family: row for family, row in rows.items() if row}


def table(libraries: dict[str, dict[str, dict]]) -> str:
    """How many families of each library train, in Markdown, then family by family, then those that do not run here."""
    lines = ['| library | families that train as shipped | IC | PyConv |', '|---|---|---|---|']
    for library, rows in libraries.items():
        trained = [row for row in rows.values() if not row['original']]
        counts = [f'{sum(not row[swap] for row in trained)} of {len(trained)}' for swap in SWAPS]
        lines.append(f'| {library} | {len(trained)} of {len(rows)} | ' + ' | '.join(counts) + ' |')
    lines += ['', '| library | family | config | IC | PyConv |', '|---|---|---|---|---|']
    failed = [
        '',
        '| library | family that does not train as shipped, on such pictures | config | what it says |',
        '|---|---|---|---|',
    ]
    for library, rows in libraries.items():
        for family, row in rows.items():
            config = row['config'].removeprefix(f'{family}/')
            if row['original']:
                said = row['original'].replace('|', '/')
                failed.append(f'| {library} | {family} | `{config}` | {said} |')
            else:
                said = ' | '.join(row[swap].replace('|', '/') or 'trains' for swap in SWAPS)
                lines.append(f'| {library} | {family} | `{config}` | {said} |')
    return '\n'.join(lines + (failed if len(failed) > 3 else []))


def train_one_step(library: str, cfg: Config, backbone: dict, size: int) -> None:
    """Builds the model of a config with a backbone, takes a step on two random pictures and predicts for the first.

    Args:
        library: The import name of the library of the config.
        cfg: The config; it stays as it is.
        backbone: What takes the place of ``model.backbone``.
        size: The height and width of the pictures, in pixels.

    Raises:
        Exception: Whatever the model raises; a RuntimeError if the backbone got no finite gradient.
    """
    torch.manual_seed(0)
    cfg = deepcopy(cfg)
    cfg.model.backbone = deepcopy(backbone)
    shrink(cfg.model, size)
    if 'data_preprocessor' in cfg:  # as the runner does
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(library):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        batch = make_batch(cfg, size=size, count=2, num_classes=classes_of(model))
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        loss, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
        loss.backward()
        gradients = [weight.grad for weight in model.backbone.parameters() if weight.grad is not None]
        if not gradients or not all(gradient.isfinite().all() for gradient in gradients):
            raise RuntimeError(f'{len(gradients)} weights of the backbone got a gradient, or some are not finite')
        optimizer.step()
        model.eval()
        with torch.no_grad():
            first = {key: values[:1] for key, values in batch.items()}
            model(**model.data_preprocessor(first, False), mode='predict')


def _try(library: str, cfg: Config, backbone: dict, size: int) -> str:
    try:
        train_one_step(library, cfg, backbone, size)
    except Exception as error:
        return _sentence(error)
    return ''


def _candidates(library: str, paths: list[Path]) -> Iterator[tuple[Path, Config]]:
    found = 0
    for path in paths:
        try:
            cfg = Config.fromfile(path, import_custom_modules=False)
            kind = cfg.model.backbone.type.rpartition('.')[2]
        except Exception:  # bases that are not shipped, or a model without a backbone of its own
            continue
        if kind in ONE_LINE['IC']:
            _without_files(cfg.model, _root(library).parent)
            yield path, cfg
            found += 1
            if found == TRIES:
                return


def _without_files(node, folder: Path) -> None:
    """Nothing is loaded; the config of a teacher is found where the library has it."""
    if isinstance(node, dict):
        for key in ('pretrained', 'teacher_ckpt'):
            node.pop(key, None)
        if isinstance(node.get('init_cfg'), dict) and node['init_cfg'].get('type') == 'Pretrained':
            node.pop('init_cfg')
        if isinstance(node.get('teacher_config'), str):
            node['teacher_config'] = str(folder / node['teacher_config'])
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        _without_files(value, folder)


def _root(library: str) -> Path:
    return Path(importlib.util.find_spec(library).origin).parent / '.mim/configs'


def _depth(path: Path) -> int:
    return next((rank for rank, depth in enumerate(DEPTHS) if re.search(rf'(?<!\d){depth}(?!\d)', path.stem)), 2)
