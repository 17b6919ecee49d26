"""Heads of mmdet on pairs of maps (SEPC), and the anchors of detectors that were trained with mmdet 1.x."""

from collections.abc import Sequence
from functools import partial

from mmdet.models.task_modules.prior_generators import AnchorGenerator, LegacyAnchorGenerator, MlvlPointGenerator
from torch import Tensor, nn

from icconv_mm.errors import InputError
from icconv_mm.registry import MODELS, TASK_UTILS

_BRANCHES = ('cls_convs', 'reg_convs')


@MODELS.register_module()
def SplitFeatureHead(head_type: str, prior_shift: int = 0, **kwargs) -> nn.Module:
    """Build a dense head of mmdet that reads pairs (classification map, localisation map) instead of levels.

    A function, although configs use it as a ``type``: it returns an object of ``head_type``, with mmdet's keys, losses
    and post-processing. With ``stacked_convs=0`` the pair goes straight to the predictors, as in SEPC
    (https://arxiv.org/abs/2005.03101); ``feat_channels`` must then equal ``in_channels``.

    Args:
        head_type: Type of the head. It must read the levels only in two towers ``cls_convs`` and ``reg_convs``, shared
            by the levels or one for each: RetinaHead, ATSSHead, GFLHead, FCOSHead, PAAHead, VFNetHead,
            RepPointsHead, RTMDetSepBNHead, ...
        prior_shift: Cells by which the head's anchors or points move right and down. ``SEPC(lcconv_padding=0)`` crops
            one cell at every side, so cell (0, 0) of its maps looks at cell (1, 1). 0: priors start at the origin, as
            the authors' weights expect; 1: priors are where the maps look.
        kwargs: Arguments of the head.

    Returns:
        An instance of ``head_type``.

    Raises:
        InputError: If the head lacks such towers or its priors cannot move; in ``forward``, if a level is no pair or
            the head reads a pair outside its towers.
    """
    head = MODELS.build(dict(type=head_type, **kwargs))
    for branch, name in enumerate(_BRANCHES):
        _read_branch(head, name, branch)
    if prior_shift:
        _shift_priors(head, prior_shift)
    return head


class _Start(nn.Identity):
    """Where an empty tower reads; some heads initialise the ``conv`` of every layer of a tower."""

    conv = None


def _read_branch(head: nn.Module, name: str, branch: int) -> None:
    """Let the tower ``name`` of a head, or that of each level, start from one of the two maps."""
    found = getattr(head, name, None)
    if not isinstance(found, nn.ModuleList):
        raise InputError(
            f'SplitFeatureHead: {type(head).__name__} needs two towers of convolutions, cls_convs and reg_convs; '
            f'{name}: {"none" if found is None else type(found).__name__}'
        )
    per_level = len(found) and all(isinstance(tower, nn.ModuleList) for tower in found)
    for tower in found if per_level else [found]:
        if not len(tower):
            tower.append(_Start())
        tower[0].register_forward_pre_hook(partial(_pick, branch=branch))


def _pick(module: nn.Module, args: tuple, branch: int) -> tuple[Tensor]:
    """What a tower reads: its own map of a level's pair."""
    level = args[0]
    if isinstance(level, Tensor) or not isinstance(level, Sequence) or len(level) != 2:
        shape = f'a map of shape {list(level.shape)}' if isinstance(level, Tensor) else f'{type(level).__name__}'
        raise InputError(
            'a head built by SplitFeatureHead takes a pair (classification map, localisation map) per level, as '
            f"icconv_mm.SEPC with branches='both' gives; got {shape}"
        )
    return (level[branch],)


def _shift_priors(head: nn.Module, cells: int) -> None:
    # a head may hold one generator under several names
    generators = {id(value): value for value in vars(head).values() if hasattr(value, 'grid_priors')}
    for generator in generators.values():
        if isinstance(generator, AnchorGenerator):
            generator.base_anchors = [
                anchors + anchors.new_tensor([width, height, width, height]) * cells
                for anchors, (width, height) in zip(generator.base_anchors, generator.strides)
            ]
        elif isinstance(generator, MlvlPointGenerator):
            generator.offset += cells
        else:
            raise InputError(
                f'SplitFeatureHead: prior_shift={cells}: {type(head).__name__} has priors of type '
                f'{type(generator).__name__}, expected AnchorGenerator or MlvlPointGenerator'
            )


@TASK_UTILS.register_module()
class PixelAnchorGenerator(LegacyAnchorGenerator):
    """The anchors of mmdet 1.x, given by their edges.

    mmdet 1.x names a box by its first and last pixel, (x1, y1, x2, y2) with width x2 - x1 + 1, and rounds anchors to
    whole pixels. Edges of the same boxes are (x1, y1, x2 + 1, y2 + 1). With them as anchors mmdet 3's own coders,
    assigners and NMS compute what mmdet 1.x computed, half pixels included: mmdet's ``LegacyDeltaXYWHBBoxCoder``, in
    contrast, leaves these out.

    Args: Those of ``LegacyAnchorGenerator``; ``center_offset`` is 0.5 unless given.
    """

    def __init__(self, *args, center_offset: float = 0.5, **kwargs):
        super().__init__(*args, center_offset=center_offset, **kwargs)

    def gen_single_level_base_anchors(self, *args, **kwargs) -> Tensor:
        """Base anchors [A, 4] as (left, top, right, bottom) edges in pixels."""
        anchors = super().gen_single_level_base_anchors(*args, **kwargs)
        anchors[:, 2:] += 1
        return anchors
