"""Train one config of each family that the installed libraries ship for a step: as it is, then with our backbones.

What is known is not tried again: a run that was interrupted goes on.
"""

import importlib
import json
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from survey.random_batches import make_batch, shrink
from survey.swaps import (
    FAMILIES_MARK,
    LIBRARIES,
    ONE_LINE,
    PAGE,
    Case,
    configs_of,
    installed,
    said_by,
    swaps,
    write_page,
)

import icconv_mm
from icconv_mm import versions
from icconv_mm.errors import InputError
from icconv_mm.utils import command_line
from icconv_mm.utils.config_tree import dicts_in

TRIES = 3  # configs of a family, until one trains as it is shipped
# the size of the images, in pixels, and whether weights are initialised as the config says, until a model trains:
# some heads need larger images, some proposals are made by the initialisation, which takes longest
ATTEMPTS = ((64, False), (128, False), (64, True), (128, True), (384, True))
SWAPS = ('IC', 'PyConv')
NETWORKS = {kind.rpartition('.')[2] for swap in SWAPS for pair in ONE_LINE[swap].items() for kind in pair}
DEPTHS = ('18', '34', '50', '101', '152')
LEVELS = {'mmpose': 2}  # folders that make a family; one elsewhere


def find_families(library: str) -> dict[str, list[Path]]:
    """The configs of each folder that a library ships, those of the smallest depth first, benchmarks of it last."""
    root = configs_of(library)
    families: dict[str, list[Path]] = {}
    for path in sorted(root.rglob('*.py'), key=lambda path: ('benchmarks' in path.parts, _depth(path), path)):
        parts = path.relative_to(root).parts
        if '_base_' not in parts:
            families.setdefault('/'.join(parts[: LEVELS.get(library, 1)]), []).append(path)
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
        name = path.relative_to(configs_of(library)).as_posix()
        if isinstance(cfg, str):
            row = row or {'config': name, 'original': cfg}
            continue
        for attempt in ATTEMPTS:
            error = _try(library, cfg, *attempt)
            if not error:
                row = {'config': name, 'original': ''}
                return row | {swap: _try(library, swapped(library, cfg, swap), *attempt) for swap in SWAPS}
            row = row or {'config': name, 'original': error}
    return row


def backbones(node) -> Iterator[dict]:
    """The networks within a model that one line swaps, wherever they are; those of a teacher stay."""
    if isinstance(node, dict):
        if str(node.get('type')).rpartition('.')[2] in ONE_LINE['IC'] and 'depth' in node:
            yield node
        node = [value for key, value in node.items() if not str(key).startswith('teacher')]
    for value in node if isinstance(node, (list, tuple)) else ():
        yield from backbones(value)


def swapped(library: str, cfg: Config, swap: str) -> Config:
    """A config with the change of one line, in each of its backbones."""
    cfg = deepcopy(cfg)
    for backbone in backbones(cfg.model):
        new = dict(swaps(Case(library, cfg.filename, backbone)))[swap]
        backbone.clear()
        backbone.update(new)
    return cfg


def check_families(library: str, cache: Path) -> dict[str, dict]:
    """The rows of all families of a library; each is kept in a file once it is known, and not tried again.

    Args:
        library: Its import name.
        cache: A JSON file: by library, under 'with', the versions that were tried, and the rows by family.

    Raises:
        InputError: The file was made with other versions.
    """
    importlib.import_module(f'{library}.models')
    found = [f'icconv_mm {icconv_mm.__version__}', *installed('torch', 'mmcv', library)]
    if (before := read(cache).get(library, {}).get('with', found)) != found:
        raise InputError(f'{cache} was made with {", ".join(before)}; here are {", ".join(found)}: give another file')
    for family, paths in command_line.progress(find_families(library).items(), description=library):
        known = read(cache)
        rows = known.setdefault(library, {'with': found, 'families': {}})['families']
        if family not in rows:
            rows[family] = check_family(library, paths)
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.write_text(json.dumps(known, indent=1, sort_keys=True) + '\n')
    return read(cache)[library]['families']


def read(cache: Path) -> dict[str, dict]:
    """What the file of :func:`check_families` holds, in the order of the libraries; nothing where there is none."""
    known = json.loads(cache.read_text()) if cache.exists() else {}
    return {library: known[library] for library in LIBRARIES if library in known}


def table(known: dict[str, dict]) -> str:
    """How many families of each library train, in Markdown, then family by family, then those that do not run here."""
    found = ', '.join(dict.fromkeys(each for library in known.values() for each in library['with']))
    lines = [f'With {found}.', '', '| library | families that train as shipped | IC | PyConv |', '|---|---|---|---|']
    trained, failed = [], []
    for library, content in known.items():
        rows = [(library, family, row) for family, row in content['families'].items() if row]
        good = [each for each in rows if not each[2]['original']]
        counts = [f'{sum(not row[swap] for _, _, row in good)} of {len(good)}' for swap in SWAPS]
        lines.append(f'| {library} | {len(good)} of {len(rows)} | ' + ' | '.join(counts) + ' |')
        trained += good
        failed += [each for each in rows if each[2]['original']]
    lines += ['', '| library | family | config | IC | PyConv |', '|---|---|---|---|---|']
    for library, family, row in trained:
        said = ' | '.join(_cell(row[swap]) or 'trains' for swap in SWAPS)
        lines.append(f'| {library} | {family} | `{row["config"].removeprefix(f"{family}/")}` | {said} |')
    if failed:
        lines += ['', '| library | family that does not train here as shipped | config | what it says |']
        lines.append('|---|---|---|---|')
    for library, family, row in failed:
        config, said = row['config'].removeprefix(f'{family}/'), _cell(row['original'])
        lines.append(f'| {library} | {family} | `{config}` | {said} |')
    return '\n'.join(lines)


def _cell(said: str) -> str:
    return ' '.join(said.replace('|', '/').split())


def train_one_step(library: str, cfg: Config, size: int, initialize: bool) -> None:
    """Builds the model of a config, takes a step on two random images and predicts for the first.

    Args:
        library: The import name of the library of the config.
        cfg: The config; it stays as it is.
        size: The height and width of the images, in pixels.
        initialize: Whether the weights are initialised as the config says.

    Raises:
        Exception: Whatever the model raises; a RuntimeError if the backbone got no finite gradient.
    """
    torch.manual_seed(0)
    cfg = deepcopy(cfg)
    shrink(cfg.model, size)
    if 'data_preprocessor' in cfg:  # as the runner does
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(library):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        if initialize:
            model.init_weights()
        batch = make_batch(cfg, model, size)
        model.train()
        MessageHub.get_current_instance().update_info('epoch', 0)  # which some losses ask for; of the runner
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        loss, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
        loss.backward()
        ours = [module for module in model.modules() if type(module).__name__ in NETWORKS]
        gradients = [weight.grad for module in ours for weight in module.parameters() if weight.grad is not None]
        if not gradients or not all(gradient.isfinite().all() for gradient in gradients):
            raise RuntimeError(f'{len(gradients)} weights of the backbone got a gradient, or some are not finite')
        optimizer.step()
        model.eval()
        _predict(model, batch)


@torch.no_grad()
def _predict(model, batch: dict) -> None:
    first = {key: (values['sup'] if isinstance(values, dict) else values)[:1] for key, values in batch.items()}
    data = model.data_preprocessor(first, False)
    if isinstance(data['inputs'], list):  # a self-supervised model has features alone
        model(data['inputs'][0], mode='tensor')
    else:
        model(**data, mode='predict')


def _try(library: str, cfg: Config, size: int, initialize: bool) -> str:
    try:
        train_one_step(library, cfg, size, initialize)
    except Exception as error:
        return said_by(error)
    return ''


def _candidates(library: str, paths: list[Path]) -> Iterator[tuple[Path, Config | str]]:
    """At most three configs with a backbone that one line swaps, or what is said where one cannot be read."""
    found = 0
    for path in filter(_mentions_a_resnet, paths):
        try:
            cfg = Config.fromfile(path, import_custom_modules=False)
        except Exception as error:  # bases that are not shipped
            yield path, said_by(error).replace(str(configs_of(library).parents[1]), '')
            continue
        if any(backbones(cfg.get('model'))):
            _without_files(cfg.model, configs_of(library).parent)
            yield path, cfg
            found += 1
            if found == TRIES:
                return


@cache
def _mentions_a_resnet(path: Path) -> bool:
    """Whether a config or one that it inherits names a type of the family: reading it would take much longer."""
    try:
        if 'ResNe' in path.read_text():
            return True
        bases = Config._get_base_files(str(path))
    except Exception:  # bases that are not shipped
        return False
    return any('::' in base or _mentions_a_resnet((path.parent / base).resolve()) for base in bases)


def _without_files(model: dict, folder: Path) -> None:
    """Nothing is loaded; the config of a teacher is found where the library has it."""
    for node in dicts_in(model):
        for key in ('pretrained', 'teacher_ckpt'):
            node.pop(key, None)
        if isinstance(node.get('init_cfg'), dict) and node['init_cfg'].get('type') == 'Pretrained':
            node.pop('init_cfg')
        if isinstance(node.get('teacher_config'), str):
            node['teacher_config'] = str(folder / node['teacher_config'])


def _depth(path: Path) -> int:
    return next((rank for rank, depth in enumerate(DEPTHS) if re.search(rf'(?<!\d){depth}(?!\d)', path.stem)), 2)


def main(argv=None) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument('--rows', type=Path, required=True, metavar='FILE.json', help='the families that were tried')
    parser.add_argument('--libraries', nargs='+', choices=LIBRARIES, help='default: all that are installed')
    parser.add_argument('--page', type=Path, default=PAGE, metavar='FILE', help='where the tables go (%(default)s)')
    args = parser.parse_args(argv)
    with command_line.reporting(args.debug, interrupted='what was tried is kept'):
        for library in args.libraries or LIBRARIES:
            if versions.is_installed(library):
                # a process of its own, which does not say how each weight is initialised
                with ProcessPoolExecutor(1, get_context('spawn'), logging.disable, (logging.INFO,)) as pool:
                    pool.submit(check_families, library, args.rows).result()
        text = table(read(args.rows))
        write_page(args.page, FAMILIES_MARK, text)
        print(text)


if __name__ == '__main__':
    main()
