"""Each truth at the border has one owner: nobody else decodes an image, opens a checkpoint, writes a file, ..."""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

WRITES = 'open(w)'  # a call of `open` in a mode that writes, of a path's method as well
SHOWS = 'compare(score, threshold)'
SIDES = 'pair(left, right)'
LABEL = 'first(labels)'  # one of several
ABSENT = 'get(name, zeros)'  # a keypoint by its name, or none
_WRITING = set('wax+')
_LEAST = re.compile(r'thr|least', re.IGNORECASE)


@dataclass(frozen=True)
class Owner:
    """The modules that alone may do something.

    Attributes:
        truth: What they do.
        modules: Their dotted names; one that ends with a dot stands for a package and what is in it.
        names: Functions by dotted name (``cv2.imdecode``), methods of any object (``.write_bytes``), :data:`WRITES`
            and the others, a text in the source (``text(last_checkpoint)``), what is assigned (``set(max_epochs)``).
        planted: Lines of a module that does the owner's work under another name.
        within: The package, with a dot at the end, where it is theirs; '' for everywhere.
    """

    truth: str
    modules: Sequence[str]
    names: Sequence[str]
    planted: str
    within: str = ''

    def owns(self, module: str) -> bool:
        """Returns whether a module is one of the owner's."""
        return any(
            module == prefix or (prefix.endswith('.') and f'{module}.'.startswith(prefix)) for prefix in self.modules
        )

    def others(self, root: Path, packages: Sequence[str]) -> list[str]:
        """Returns ``module:line: name`` for each use in the packages below a folder, but for the owner's own."""
        locations = []
        for package in packages:
            for path in sorted((root / package).rglob('*.py')):
                module = '.'.join(path.relative_to(root).with_suffix('').parts).removesuffix('.__init__')
                if not self.owns(module) and (module.startswith(self.within) or root != ROOT):
                    locations += [f'{module}:{line}: {name}' for name, line in uses(path) if self._is_named(name)]
        return locations

    def _is_named(self, name: str) -> bool:
        if self.owns(name.rpartition('.')[0]):  # a function of the owner's
            return False
        return any(
            name == owned_name or (owned_name.startswith('.') and name.endswith(owned_name))
            for owned_name in self.names
        )


@cache
def uses(path: Path) -> tuple[tuple[str, int], ...]:
    """Returns the dotted name and the line of everything that a module names, with imported names written out."""
    return tuple(_uses(ast.parse(path.read_bytes())))


def _uses(tree: ast.Module) -> Iterator[tuple[str, int]]:
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imported[alias.asname or alias.name.split('.')[0]] = (
                    alias.name if alias.asname else alias.name.split('.')[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                imported[alias.asname or alias.name] = f'{node.module}.{alias.name}'
                yield f'{node.module}.{alias.name}', node.lineno
    annotations = [getattr(node, name, None) for node in ast.walk(tree) for name in ('annotation', 'returns')]
    types = {part for annotation in annotations if annotation for part in ast.walk(annotation)}
    for node in ast.walk(tree):
        if node in types:
            continue
        if isinstance(node, ast.Attribute):
            yield _dotted(node, imported), node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield f'text({node.value})', node.lineno
        elif isinstance(node, ast.Name) and node.id in imported:
            yield imported[node.id], node.lineno
        for mark, shows in _MARKS.items():
            if shows(node):
                yield mark, node.lineno
        for target in getattr(node, 'targets', ()) or [getattr(node, 'target', None)]:
            yield from ((f'set({name})', node.lineno) for name in _assigned(target))


def _dotted(node: ast.expr, imported: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f'{_dotted(node.value, imported)}.{node.attr}'
    return imported.get(node.id, node.id) if isinstance(node, ast.Name) else '?'


def _assigned(target: ast.expr | None) -> Iterator[str]:
    """Yields the attributes and keys that an assignment sets."""
    if isinstance(target, (ast.Tuple, ast.List)):
        yield from (name for element in target.elts for name in _assigned(element))
    elif isinstance(target, ast.Attribute):
        yield target.attr
    elif isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        yield target.slice.value


def _selects(comparison: ast.AST) -> bool:
    """Returns whether scores are compared with a threshold."""
    if not isinstance(comparison, ast.Compare):
        return False
    text = ast.unparse(comparison)
    is_order = isinstance(comparison.ops[0], (ast.Gt, ast.GtE, ast.Lt, ast.LtE))
    return is_order and 'score' in text.lower() and bool(_LEAST.search(text))


def _pairs_sides(node: ast.AST) -> bool:
    """Returns whether a call or a pair has the words left and right, as of names of keypoints."""
    given = node.args[-2:] if isinstance(node, ast.Call) else getattr(node, 'elts', ())
    words = [str(value.value).lower() for value in given if isinstance(value, ast.Constant)]
    return len(given) == 2 == len(words) and 'left' in words[0] and words[1] == words[0].replace('left', 'right')


def _takes_a_label(node: ast.AST) -> bool:
    """Returns whether an image's labels are reduced to one."""
    if isinstance(node, ast.Subscript):
        is_one, what = isinstance(node.slice, (ast.Constant, ast.UnaryOp)), node.value
    else:
        function = getattr(node, 'func', None)
        is_one, what = getattr(function, 'id', getattr(function, 'attr', '')) in ('next', 'max', 'min', 'pop'), node
    return is_one and bool(re.search(r'\.labels\b(?!\()', ast.unparse(what)))


def _fills_in(node: ast.AST) -> bool:
    """Returns whether a call gets a value by a name, else three zeros."""
    default = node.args[1] if isinstance(node, ast.Call) and len(node.args) == 2 else None
    is_get = isinstance(default, (ast.Tuple, ast.List)) and getattr(node.func, 'attr', '') in ('get', 'pop')
    return is_get and [ast.unparse(element).rstrip('.0') for element in default.elts] == [''] * 3


def _writes(call: ast.AST) -> bool:
    """Returns whether a call opens a file to write."""
    if not isinstance(call, ast.Call):
        return False
    is_method = isinstance(call.func, ast.Attribute)
    if (call.func.attr if is_method else getattr(call.func, 'id', '')) not in ('open', 'fdopen'):
        return False
    modes = [word.value for word in call.keywords if word.arg == 'mode']
    modes += call.args[:1] if is_method and len(call.args) == 1 else call.args[1:2]
    return any(isinstance(mode, ast.Constant) and bool(_WRITING & set(str(mode.value))) for mode in modes)


_MARKS = {WRITES: _writes, SHOWS: _selects, SIDES: _pairs_sides, LABEL: _takes_a_label, ABSENT: _fills_in}
ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ('icconv_mm', 'icconv_mm_runtime')

OWNERS = [
    Owner(
        'draws on images',
        # the other one fills the pixels of lines and points of LabelMe's masks
        ['icconv_mm_runtime.drawing', 'icconv_mm.app.annotations.readers.labelme'],
        [
            'cv2.rectangle',
            'cv2.putText',
            'cv2.polylines',
            'cv2.drawContours',
            'cv2.fillPoly',
            'cv2.circle',
            'cv2.line',
            'cv2.addWeighted',
            'PIL.ImageDraw',
            'PIL.ImageDraw.Draw',
            'matplotlib.patches.Rectangle',
        ],
        'from cv2 import rectangle as r\nr(image, (0, 0), (1, 1), (0, 0, 0))',
    ),
    Owner(
        'finds boxes that show one object, in several tiles',
        # the others: boxes of a video's frame, and what a network itself suppresses
        ['icconv_mm_runtime.tiling', 'icconv_mm.app.prediction.tracking', 'icconv_mm.app.export.'],
        [
            'mmcv.ops.batched_nms',
            'mmcv.ops.nms',
            'torchvision.ops.nms',
            'torchvision.ops.batched_nms',
            'cv2.dnn.NMSBoxes',
            '.with_nms',
        ],
        'from mmcv.ops import batched_nms as n\nn(boxes, scores, labels, {})',
    ),
    Owner(
        'decides how a process answers Ctrl-C and what its output does with an error',
        ['icconv_mm_runtime.process', 'icconv_mm_runtime.interrupts'],
        [
            'signal.SIGINT',
            '_signal.SIGINT',
            'signal.SIGPIPE',
            'signal.default_int_handler',
            'sys.excepthook',
            'sys.unraisablehook',
            'threading.excepthook',
            'BrokenPipeError',
            '.reconfigure',
            'logging.setLogRecordFactory',
            'warnings.formatwarning',
        ],
        'from signal import SIGINT as ctrl_c, signal\nsignal(ctrl_c, print)',
    ),
    Owner(
        "shows text by Rich, which takes '[/]' and ':smile:' in names for markup",
        # the other shows numbers in a bar, and log lines above it
        ['icconv_mm.app.commands.tables', 'icconv_mm.app.training.hooks.progress'],
        [
            'rich.console.Console',
            'rich.table.Table',
            'rich.print',
            'rich.markup.escape',
            'rich.progress.track',
            'rich.progress.Progress',
            'rich.text.Text',
        ],
        'from rich import print as show\nshow(name)',
    ),
    Owner(
        'escapes control characters',
        ['icconv_mm_runtime.errors'],
        ['unicodedata.category'],
        'from unicodedata import category as kind\nkind("a") == "Cc"',
    ),
    Owner(
        'decides which predictions are shown',
        # the others: what a network itself suppresses, and segmentation maps of one class
        ['icconv_mm_runtime.thresholds', 'icconv_mm.app.export.', 'icconv_mm_runtime.outputs'],
        [SHOWS],
        'from numpy import asarray as a\nkept = a(found["scores"]) >= score_thr',
    ),
    Owner(
        'finds weights that are not finite',
        # the others look at losses, metrics, gradients, heat maps, outputs, annotations and the channels of a search
        [
            'icconv_mm_runtime.finite',
            'icconv_mm_runtime.outputs',
            'icconv_mm.app.training.hooks.logs',
            'icconv_mm.patterns.',
            'icconv_mm.tasks.',
            'icconv_mm.app.annotations.',
            'icconv_mm.app.evaluation.',
            'icconv_mm.datasets.',
            'icconv_mm.checkpoints.convert',
        ],
        ['numpy.isfinite', 'torch.isfinite', '.isfinite', 'numpy.isnan', 'torch.isnan'],
        'from torch import isfinite as good\ngood(None).all()',
    ),
    Owner(
        'decodes images and opens videos',
        # the second one hands out what Pillow knows of a file: its size, orientation, palette and stored values
        ['icconv_mm_runtime.decoding', 'icconv_mm.datasets.image_files'],
        [
            'cv2.imdecode',
            'cv2.imread',
            'cv2.imreadmulti',
            'cv2.imdecodemulti',
            'cv2.VideoCapture',
            'PIL.Image.open',
            'mmcv.imread',
            'mmcv.imfrombytes',
            'mmcv.VideoReader',
            '.VideoCapture',
            '.VideoReader',
            'av.open',
            'imageio.get_reader',
            'torchvision.io.read_video',
            '.n_frames',
            '.is_animated',
            'cv2.imcount',
            'imageio.imread',
            'tifffile.imread',
            'torchvision.io.read_image',
            'torchvision.io.decode_image',
            'skimage.io.imread',
            'matplotlib.pyplot.imread',
        ],
        'from cv2 import imdecode as d\nd(b"", 1)',
    ),
    Owner(
        'fetches',
        ['icconv_mm.fetch'],
        [
            'urllib.request.urlopen',
            'urllib.request.urlretrieve',
            'torch.hub.download_url_to_file',
            'torch.hub.load_state_dict_from_url',
            'torch.hub.load',
            'torch.utils.model_zoo.load_url',
            'requests.get',
            'http.client.HTTPSConnection',
            'http.client.HTTPConnection',
        ],
        'import urllib.request as r\nr.urlopen("https://a.example")',
    ),
    Owner(
        'writes a file under its name',
        # the others: lines that are appended, a lock's file, and a compiler's script before anything is installed
        ['icconv_mm_runtime.files', 'icconv_mm_runtime.records', 'icconv_mm.files', 'icconv_mm.app.install_openmmlab'],
        ['tempfile.mkstemp', '.write_bytes', '.write_text', 'os.fdopen', 'open(w)', '.imwrite'],
        'with open("a.json", mode="w") as file:\n    file.write("")',
    ),
    Owner(
        'finds the checkpoint and the config of a training in its folder',
        ['icconv_mm.run_folder', 'icconv_mm.app.training.own_backbone'],  # the second lists the package's backbones
        [
            'text(last_checkpoint)',
            'text(*.py)',
            'mmengine.runner.find_latest_checkpoint',
            'mmengine.runner.checkpoint.find_latest_checkpoint',
        ],
        'from mmengine.runner import find_latest_checkpoint as latest\nlatest(".")',
    ),
    Owner(
        'unpickles',
        ['icconv_mm.checkpoints.reading'],
        ['torch.load', 'pickle.load', 'pickle.loads', 'pickle.Unpickler', 'torch.jit.load', 'joblib.load', 'dill.load'],
        'from torch import load as read\nread("net.pth")',
    ),
    Owner(
        'brings maps to channels_last and back',  # operators, their programs and folded filters know the format
        [
            'icconv_mm.layers.memory_format',
            'icconv_mm.layers.fast_eval',
            'icconv_mm.ops.tensors',
            'icconv_mm.deployment.deploy',
            'icconv_mm.app.export.',
        ],
        ['torch.channels_last', 'torch.nn.modules.module.register_module_module_registration_hook'],
        'from torch import channels_last as fast\nx = x.contiguous(memory_format=fast)',
    ),
    Owner(
        'finds the library whose config is changed, and its defaults',
        ['icconv_mm.registry', 'icconv_mm.compat'],
        ['mmengine.registry.DefaultScope.get_current_instance', 'icconv_mm.registry.library_network'],
        'from mmengine.registry import DefaultScope as Scope\nif Scope.get_current_instance(): pass',
    ),
    Owner(
        'checks names, paths and scores that a reader of annotations returns',
        # the other one checks names that a user gives
        ['icconv_mm.app.annotations.schema', 'icconv_mm.app.annotations.convert'],
        ['icconv_mm.errors.is_unprintable', 'icconv_mm.errors.check_names', '.isprintable'],
        'from icconv_mm.errors import is_unprintable as bad\nbad(image.path)',
        within='icconv_mm.app.annotations.',
    ),
    Owner(
        'checks that numbers of annotations are finite',
        # the others: numbers of text, and what DeepLabCut and SLEAP write for a point that is not labelled
        [
            'icconv_mm.app.annotations.schema',
            'icconv_mm.app.annotations.readers.deeplabcut',
            'icconv_mm.app.annotations.readers.sleap',
            'icconv_mm.app.annotations.readers.yolo',
        ],
        ['math.isfinite', 'math.isnan', 'numpy.isfinite', 'numpy.isnan', '.isfinite', '.isnan'],
        'from math import isfinite as good\nall(map(good, box))',
        within='icconv_mm.app.annotations.',
    ),
    Owner(
        'decides whose points are, and which are twice in an object',
        ['icconv_mm.app.annotations.points'],
        [ABSENT, 'text(point_)', 'icconv_mm_runtime.thresholds.KEYPOINT_SCORE'],
        'by_name = dict(points)\nkeypoints = [value for name in names for value in by_name.get(name, (0, 0, 0))]',
        within='icconv_mm.app.annotations.',
    ),
    Owner(
        'decides which of several labels an image or an object has',
        ['icconv_mm.app.annotations.dataset'],
        [LABEL],
        'first = image\nlabel = max(set(first.labels), key=first.labels.count)',
        within='icconv_mm.app.annotations.',
    ),
    Owner(
        'decides which keypoints a flip swaps',
        ['icconv_mm.datasets.flips'],
        [SIDES],
        'swap = str.replace\npairs = [(name, swap(name, "left", "right")) for name in names]',
    ),
    Owner(
        'decides which values of segmentation maps are classes, and which are ignored',
        # the others write what it decides, and read what a config says
        [
            'icconv_mm.app.annotations.map_values',
            'icconv_mm.app.annotations.map_conversion',
            'icconv_mm.app.adapters.semantic',
            'icconv_mm.tasks.semantic.data',
        ],
        ['icconv_mm.datasets.seg_maps.IGNORED', 'text(void)', 'text(unlabeled)', 'text(unlabelled)'],
        'from icconv_mm.datasets.seg_maps import IGNORED as no\nnames = [value for value in values if value != no]',
    ),
    Owner(
        "scales what a config counts by a training's length",
        # the others: schedulers, and a training that is planned anew while it runs
        ['icconv_mm.app.runs.lengths', 'icconv_mm.app.runs.schedules', 'icconv_mm.app.training.budget'],
        [
            *(f'set({name})' for name in ('max_epochs', 'max_iters', '_max_epochs', '_max_iters', 'val_interval')),
            *(f'set({name})' for name in ('num_last_epochs', 'switch_epoch', 'begin_epoch', 'milestones', 'T_max')),
            *(f'text({name})' for name in ('num_last_epochs', 'switch_epoch', 'epoch_attributes', 'T_max')),
            'icconv_mm.app.runs.schedules.stretch',
        ],
        'loop = cfg.train_cfg\nlength = 12\nloop["max_epochs"] = length',
    ),
    Owner(
        'decides how many processes load images',
        ['icconv_mm.app.runs.workers'],
        ['os.statvfs', 'os.fstatvfs', 'shutil.disk_usage', 'psutil.disk_usage', 'text(/dev/shm)', 'set(num_workers)'],
        'from os import statvfs as room\nroom(folder).f_bavail',
    ),
    Owner(
        "compares the optimizer's state of a checkpoint",
        # the other one sets what a schedule says
        ['icconv_mm.checkpoints.optimizer_state', 'icconv_mm.app.runs.schedules'],
        ['.param_groups', 'text(param_groups)', 'set(param_groups)', 'torch.distributed.optim.ZeroRedundancyOptimizer'],
        'own = optimizer\nlen(own.param_groups) == len(groups)',
    ),
    Owner(
        'stores what checkpoints of mmengine do not hold',
        ['icconv_mm.app.training.hooks.unsaved_state'],
        ['._inner_count', 'text(_accumulative_counts)', '._accumulative_counts'],
        'waiting = runner.optim_wrapper\nwaiting._inner_count % 2',
    ),
    Owner(
        'ends by SIGTERM as by Ctrl-C',
        ['icconv_mm_runtime.records'],
        ['signal.SIGTERM'],
        'from signal import SIGTERM as end, signal\nsignal(end, print)',
    ),
    Owner(
        'finds the folder of the names in a file of annotations',
        ['icconv_mm.app.annotations.images_on_disk'],
        ['icconv_mm.app.annotations.roots.files_of_names'],
        'from icconv_mm.app.annotations import roots as r\nr.files_of_names(names, near, listed)',
    ),
    Owner(
        'reads what metrics have compared',
        [
            'icconv_mm.app.evaluation.',
        ],
        [
            'pycocotools.cocoeval.COCOeval',
            'xtcocotools.cocoeval.COCOeval',
            'faster_coco_eval.COCOeval_faster',
            'mmdet.evaluation.eval_map',
            'mmdet.evaluation.functional.eval_map',
            'mmdet.evaluation.functional.mean_ap',
            'mmseg.evaluation.IoUMetric',
            'mmpretrain.evaluation.Accuracy',
            '.intersect_and_union',
            '.total_area_to_metrics',
        ],
        'from pycocotools.cocoeval import COCOeval as Evaluator\nEvaluator(truth, found, "bbox").evaluate()',
    ),
]


@pytest.mark.parametrize('owner', OWNERS, ids=lambda owner: owner.truth)
def test_nobody_else_does_it(owner):
    assert owner.others(ROOT, PACKAGES) == []


@pytest.mark.parametrize('owner', OWNERS, ids=lambda owner: owner.truth)
def test_the_scan_finds_a_second_place_under_an_alias(owner, tmp_path):
    (tmp_path / 'package').mkdir()
    (tmp_path / 'package' / 'other.py').write_text(owner.planted)
    assert owner.others(tmp_path, ['package'])
    named = {name for module in owner.modules for name in [module.rstrip('.')]}
    assert all(
        (ROOT / name.replace('.', '/')).is_dir() or (ROOT / f'{name.replace(".", "/")}.py').is_file() for name in named
    )
