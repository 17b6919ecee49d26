"""Describes an exported model: preprocessing, outputs, and what it was made of."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from icconv_mm import versions
from icconv_mm._version import __version__
from icconv_mm.app.adapters.base import TaskAdapter
from icconv_mm.app.export.networks import Exported
from icconv_mm.app.export.preparation import batch_of, scales_of, steps_of
from icconv_mm.checkpoints.convert import sha256
from icconv_mm.deployment import deploy
from icconv_mm.layers import ICConv2d
from icconv_mm_runtime import metadata as metadata_schema


def describe(
    model: nn.Module,
    parts: Mapping[str, tuple[TaskAdapter, dict]],
    transforms: Sequence[Mapping[str, Any]],
    fixed: Sequence[int] | None,
    checkpoint: str,
) -> tuple[Exported, dict]:
    """Returns the network as a module from pixels to outputs, and its description.

    Args:
        model, checkpoint: The model, in evaluation mode, and the file of its weights.
        parts: Adapter and class names of each task, as :meth:`TaskAdapter.parts` returns them.
        transforms: The test pipeline.
        fixed: Height and width of every input; None for free sizes.

    Raises:
        InputError: A part of the network or a transform cannot be exported.
    """
    metas = {name: adapter.model_input('', meta) for name, (adapter, meta) in parts.items()}
    steps = steps_of(transforms, 'test pipeline')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # warns if there is nothing to fold
        deployed = deploy(model)
    network = Exported(deployed, metas, scales_of(steps)).eval()
    batch = batch_of(model, steps, fixed, 'model.data_preprocessor')
    network.sized = batch['sized']
    tasks = []
    for part, (name, (adapter, meta)) in zip(network.parts, parts.items()):
        described = {**adapter.described(meta), 'name': name, 'kind': part.kind, 'outputs': list(part.names)}
        tasks.append({**described, **part.details(metas[name])})
    layers = [module for module in model.modules() if isinstance(module, ICConv2d)]
    pattern = hashlib.sha256(repr([layer.scaled_pattern.flat for layer in layers]).encode()).hexdigest()
    return network, {
        'schema': metadata_schema.SCHEMA,
        'steps': steps,
        'batch': batch,
        'tasks': tasks,
        'pattern_sha256': pattern if layers else None,
        'layers': len(layers),
        'checkpoint_sha256': sha256(checkpoint),
        'versions': {
            'icconv_mm': __version__,
            **{name: (versions.installed(name) or ('', ''))[1] for name in versions.SUPPORTED},
        },
    }
