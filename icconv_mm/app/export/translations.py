"""Translations of operators of an exported program to ONNX, in place of torch's own or where torch has none."""

import numpy as np
import onnx
import torch
from onnxscript import BOOL, FLOAT, opset19, script
from onnxscript import opset18 as op

from icconv_mm.app.export import operators
from icconv_mm.ops import deform_conv  # noqa: F401 registers its operator

_ALL = 2**31 - 1
_SMALLEST = float(np.finfo(np.float32).tiny)


def _nms_mask_onnx(boxes, scores, iou_threshold: float, least: float):
    # OpenCV's engine takes no score threshold below 0: it is the smallest score, and all above `least` exceed it
    above = op.Greater(scores, op.Constant(value_float=least))
    positive = op.Max(scores, op.Constant(value_float=2 * _SMALLEST))
    one_class = op.Unsqueeze(op.Where(above, positive, op.Constant(value_float=0.0)), op.Constant(value_ints=[1]))
    limits = (op.Constant(value_floats=[value]) for value in (iou_threshold, _SMALLEST))
    chosen = op.NonMaxSuppression(boxes, one_class, op.Constant(value_ints=[_ALL]), *limits)
    indices = op.Gather(chosen, op.Constant(value_ints=[0, 2]), axis=1)
    ones = op.Expand(op.Constant(value_floats=[1.0]), op.Shape(chosen, start=0, end=1))
    return op.ScatterND(op.Mul(scores, op.Constant(value_float=0.0)), indices, ones)


@script()
def _taken(
    scores: FLOAT[None], factors: FLOAT[None, None], earlier: BOOL[None, None], none: FLOAT[None], least: FLOAT
) -> FLOAT[None]:
    """Takes all boxes at once that are the best of their neighbours, and lowers the others by row of ``factors``."""
    near = op.Less(factors, op.Constant(value_float=1.0))
    one, first, last = op.Constant(value_float=1.0), op.Constant(value_ints=[0]), op.Constant(value_ints=[1])
    left, taken = scores, none
    more = op.Greater(op.ReduceMax(left, keepdims=0), op.ReduceMax(none, keepdims=0))
    while more:
        flat = op.Reshape(left, op.Constant(value_ints=[-1]))  # OpenVINO must see its rank
        forward, other = op.Unsqueeze(flat, last), op.Unsqueeze(flat, first)
        better = op.Or(op.Greater(other, forward), op.And(op.Equal(other, forward), earlier))
        worse = op.ReduceMax(op.Cast(op.And(near, better), to=1), last, keepdims=0)
        now = op.And(op.Less(worse, one), op.GreaterOrEqual(flat, least))
        taken = op.Where(now, flat, taken)
        lowered = op.ReduceProd(op.Where(op.Unsqueeze(now, first), factors, one), last, keepdims=0)
        left = op.Where(now, none, op.Mul(flat, lowered))
        more = op.GreaterOrEqual(op.ReduceMax(left, keepdims=0), least)
    return taken


def _soft_nms_onnx(boxes, scores, iou_threshold: float, sigma: float, gaussian: bool, min_score: float):
    zero, one = op.Constant(value_float=0.0), op.Constant(value_float=1.0)
    first, last = op.Constant(value_ints=[0]), op.Constant(value_ints=[1])
    rows = op.NonZero(op.GreaterOrEqual(scores, zero))
    places = op.Transpose(rows, perm=[1, 0])
    # an empty entry in the end: there may be no box
    selected = op.Pad(
        op.GatherND(scores, places), op.Constant(value_ints=[0, 1]), op.Constant(value_float=operators.NONE)
    )
    corners = op.Pad(op.GatherND(boxes, places), op.Constant(value_ints=[0, 0, 1, 0]), zero)
    image = op.Pad(op.Gather(rows, first), op.Constant(value_ints=[0, 0, 0, 1]), op.Constant(value_int=-1))
    x1, y1, x2, y2 = op.Split(corners, num_outputs=4, axis=1)

    def shared(low, high):
        inner = op.Sub(op.Min(high, op.Transpose(high, perm=[1, 0])), op.Max(low, op.Transpose(low, perm=[1, 0])))
        return op.Max(inner, zero)

    area, both = op.Mul(op.Sub(x2, x1), op.Sub(y2, y1)), op.Mul(shared(x1, x2), shared(y1, y2))
    overlap = op.Div(both, op.Sub(op.Add(area, op.Transpose(area, perm=[1, 0])), both))
    if gaussian:
        factor = op.Exp(op.Neg(op.Div(op.Mul(overlap, overlap), op.Constant(value_float=sigma))))
    else:
        near = op.GreaterOrEqual(overlap, op.Constant(value_float=iou_threshold))
        factor = op.Where(near, op.Sub(one, overlap), one)
    count = op.Range(op.Constant(value_int=0), op.Size(selected), op.Constant(value_int=1))
    row, column = op.Unsqueeze(count, first), op.Unsqueeze(count, last)
    apart = op.Or(op.Equal(row, column), op.Not(op.Equal(image, op.Transpose(image, perm=[1, 0]))))
    none = op.Constant(value_float=operators.NONE)
    # mmcv takes the best, however low it is
    least = op.Min(op.Constant(value_float=min_score), op.ReduceMax(selected, keepdims=0))
    taken = _taken(
        selected, op.Where(apart, one, factor), op.Less(row, column), op.Expand(none, op.Shape(selected)), least
    )
    kept = op.Slice(taken, first, op.Constant(value_ints=[-1]), first)
    return op.ScatterND(op.Expand(none, op.Shape(scores)), places, kept)


def _roi_features_onnx(levels, rois, level, scales, size, samples: int, aligned: bool):
    last = op.Constant(value_ints=[1])
    shape = op.Concat(
        op.Shape(rois, start=0, end=1), op.Shape(levels[0], start=1, end=2), op.Constant(value_ints=list(size)), axis=0
    )
    out = op.Expand(op.Constant(value_floats=[0.0]), shape)
    for number, (features, scale) in enumerate(zip(levels, scales)):
        indices = op.Transpose(op.NonZero(op.Equal(level, op.Constant(value_int=number))), perm=[1, 0])
        regions = op.Gather(rois, op.Squeeze(indices, last), axis=0)
        image = op.Cast(op.Gather(regions, op.Constant(value_int=0), axis=1), to=onnx.TensorProto.INT64)
        corners = op.Slice(regions, last, op.Constant(value_ints=[5]), last)
        pooled = op.RoiAlign(
            features,
            corners,
            image,
            coordinate_transformation_mode='half_pixel' if aligned else 'output_half_pixel',
            mode='avg',
            output_height=size[0],
            output_width=size[1],
            sampling_ratio=samples,
            spatial_scale=float(scale),
        )
        out = op.ScatterND(out, indices, pooled)
    return out


def _floor_divide_onnx(dividend, divisor):
    # torch's own compares booleans, which OpenCV and tract cannot
    if not dividend.dtype.is_integer():
        return op.Floor(op.Div(dividend, divisor))
    return op.Div(op.Sub(dividend, op.Mod(dividend, divisor)), divisor)  # Mod has the sign of the divisor


def _deform_conv_onnx(x, offset, mask, weight, bias, *settings):
    stride, padding, dilation, groups, deform_groups = settings
    if mask is not None and bias is None:  # readers have trouble with an input that is left out before another
        bias = op.Constant(value=onnx.numpy_helper.from_array(np.zeros(weight.shape[0], np.float32)))
    return opset19.DeformConv(
        x,
        weight,
        offset,
        bias,
        mask,
        dilations=list(dilation),
        group=groups,
        offset_group=deform_groups,
        pads=[*padding, *padding],
        strides=list(stride),
    )


TRANSLATIONS = {
    torch.ops.aten.floor_divide.default: _floor_divide_onnx,
    torch.ops.icconv_mm.export_nms_mask.default: _nms_mask_onnx,
    torch.ops.icconv_mm.export_soft_nms.default: _soft_nms_onnx,
    torch.ops.icconv_mm.export_roi_features.default: _roi_features_onnx,
}
# on request: without it the operator's decomposition, a GridSample for each tap, which older runtimes know
DEFORM_CONV = {torch.ops.icconv_mm.deform_conv2d.default: _deform_conv_onnx}
