"""Run by torchrun in two processes: a step with other tasks in each equals that of one process with all images.

Rank 0 has images for poses only, rank 1 for both tasks: neither may wait for the other. Losses are means over
images of one size, norms use their running statistics.
"""

import sys

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmpose.structures import PoseDataSample
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from icconv_mm.tasks.multitask import MultiTaskSample
from icconv_mm.tasks.multitask.model import SharedGradient
from icconv_mm.versions import is_installed

RANKS = [[(0, ['pose']), (1, ['pose'])], [(2, ['pose', 'semantic']), (3, ['semantic'])]]


def image(number: int, names: list[str]) -> tuple[Tensor, MultiTaskSample]:
    """A random image [3, 64, 64] with random labels for some tasks."""
    random = torch.Generator().manual_seed(number)
    sample = MultiTaskSample()
    meta = dict(img_shape=(64, 64), pad_shape=(64, 64), ori_shape=(64, 64))
    if 'semantic' in names:
        labels = torch.randint(0, 7, (1, 64, 64), generator=random)
        sample.semantic = SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=meta)
    if 'pose' in names:
        heatmaps, mask = torch.rand(17, 32, 32, generator=random), torch.ones(1, 32, 32, dtype=torch.bool)
        sample.pose = PoseDataSample(metainfo=meta)
        sample.pose.gt_fields = PixelData(heatmaps=heatmaps, heatmap_mask=mask)
        sample.pose.gt_instance_labels = InstanceData(keypoint_indices=torch.ones(2, 17, 2, dtype=torch.int64))
    return torch.randn(3, 64, 64, generator=random), sample


def gradients(model: nn.Module, entries: list) -> dict[str, Tensor]:
    """Of all parameters after one step with the images."""
    images, samples = zip(*(image(*entry) for entry in entries))
    inner = getattr(model, 'module', model)
    inner.parse_losses(model(torch.stack(images), list(samples), mode='loss'))[0].backward()
    grads = {key: value.grad.clone() for key, value in inner.named_parameters()}
    model.zero_grad()
    return grads


def main() -> None:
    cfg = Config.fromfile(sys.argv[1])
    init_default_scope('mmengine')
    cfg.model.tasks.pop('instance')
    cfg.model.loss_weights = dict(semantic=2.0, pose=100.0)  # the tolerance below is for gradients of their size
    cfg.model.tasks.semantic.decode_head.loss_decode = dict(type='CrossEntropyLoss')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    nn.init.normal_(model.tasks.pose.head.final_layer.weight, std=0.1)
    model.eval()
    balances = [SharedGradient(), *([SharedGradient('UPGrad')] if is_installed('quadprog') else [])]
    wholes = []
    for model.gradient in balances:
        wholes.append(gradients(model, [entry for rank in RANKS for entry in rank]))
    dist.init_process_group('gloo')
    distributed = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
    for model.gradient, whole in zip(balances, wholes):
        for _ in range(2):  # a parameter without gradient is noticed at the step after
            grads = gradients(distributed, RANKS[dist.get_rank()])
        for key, value in whole.items():
            torch.testing.assert_close(
                grads[key], value, rtol=1e-4, atol=1e-6, msg=lambda text, at=key: f'{at}: {text}'
            )
    print('equal')


if __name__ == '__main__':
    main()
