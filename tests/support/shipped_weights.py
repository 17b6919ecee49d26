"""A folder of weights as the package has them, drawn: of a classifier and of a detector."""

from pathlib import Path

import torch

from icconv_mm.checkpoints import safetensors, shipped

CLASSES = 7


def fill(folder: Path, backbone: str = 'small', *tasks: str) -> dict[str, dict[str, torch.Tensor]]:
    """Writes the files of a backbone, by default of both tasks; returns the weights of each by its address."""
    folder.mkdir(exist_ok=True)
    written = {}
    for task in tasks or ('classification', 'detection'):
        weights = classifier(backbone) if task == 'classification' else detector(backbone)
        name = shipped.weights_name(backbone, task)
        texts = dict(name=name, task=task, data='drawn images', size='64', command='draw', commit='c', sha256='s')
        texts |= dict(terms='none', result='none', num_classes=str(CLASSES), rounding='0')
        (folder / f'{name}.safetensors').write_bytes(safetensors.serialized(weights, texts))
        written[f'{shipped.SCHEME}{name}'] = weights
    return written


def classifier(backbone: str) -> dict[str, torch.Tensor]:
    from icconv_mm.models import create_model

    return _drawn(create_model(backbone, num_classes=CLASSES))


def detector(backbone: str) -> dict[str, torch.Tensor]:
    """Those of ``icconv train``'s detector, by its config, of backbone and neck and with two layers of its heads."""
    from icconv_mm.backbones import ICResNet
    from icconv_mm.models import backbone_options

    width = 48
    weights = {f'backbone.{key}': value for key, value in _drawn(ICResNet(**backbone_options(backbone)[1])).items()}
    shapes = {'rpn_head.rpn_conv': (width, width, 3), 'rpn_head.rpn_cls': (3, width, 1)}
    shapes |= {f'neck.lateral_convs.{level}.conv': (width, 24 * 2**level, 1) for level in range(4)}
    shapes |= {f'neck.fpn_convs.{level}.conv': (width, width, 3) for level in range(4)}
    generator = torch.Generator().manual_seed(1)
    for key, (out, into, side) in shapes.items():
        weights[f'{key}.weight'] = torch.randn(out, into, side, side, generator=generator) / (into * side)
    return weights


def _drawn(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    state = network.state_dict().items()
    return {key: value for key, value in state if not key.endswith('num_batches_tracked')}
