"""Translations of operators of an exported program to ONNX, in place of torch's own or where torch has none."""

import numpy as np
import onnx
import torch
from onnxscript import opset18 as op
from onnxscript import opset19

from icconv_mm.export import operators  # noqa: F401 registers the operators

_ALL = 2**31 - 1
_SMALLEST = float(np.finfo(np.float32).tiny)


def _nms_mask_onnx(boxes, scores, iou_threshold: float, least: float):
    # OpenCV's engine takes no score threshold below 0: it is the smallest score, and all above `least` exceed it
    above = op.Greater(scores, op.Constant(value_float=least))
    positive = op.Max(scores, op.Constant(value_float=2 * _SMALLEST))
    one_class = op.Unsqueeze(op.Where(above, positive, op.Constant(value_float=0.0)), op.Constant(value_ints=[1]))
    limits = (op.Constant(value_floats=[value]) for value in (iou_threshold, _SMALLEST))
    chosen = op.NonMaxSuppression(boxes, one_class, op.Constant(value_ints=[_ALL]), *limits)
    places = op.Gather(chosen, op.Constant(value_ints=[0, 2]), axis=1)
    ones = op.Expand(op.Constant(value_floats=[1.0]), op.Shape(chosen, start=0, end=1))
    return op.ScatterND(op.Mul(scores, op.Constant(value_float=0.0)), places, ones)


def _roi_features_onnx(levels, rois, level, scales, size, samples: int, aligned: bool):
    last = op.Constant(value_ints=[1])
    shape = op.Concat(
        op.Shape(rois, start=0, end=1), op.Shape(levels[0], start=1, end=2), op.Constant(value_ints=list(size)), axis=0
    )
    out = op.Expand(op.Constant(value_floats=[0.0]), shape)
    for number, (features, scale) in enumerate(zip(levels, scales)):
        own = op.Transpose(op.NonZero(op.Equal(level, op.Constant(value_int=number))), perm=[1, 0])
        regions = op.Gather(rois, op.Squeeze(own, last), axis=0)
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
        out = op.ScatterND(out, own, pooled)
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
    torch.ops.icconv_mm.export_roi_features.default: _roi_features_onnx,
}
# on request: without it the operator's decomposition, a GridSample for each tap, which older runtimes know
DEFORM_CONV = {torch.ops.icconv_mm.deform_conv2d.default: _deform_conv_onnx}
