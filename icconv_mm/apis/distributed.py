"""Distribution on machines without an accelerator, where mmengine assumes one."""

import torch
from mmengine.config import Config
from mmengine.device import get_device


def prepare_launch(cfg: Config, launcher: str) -> None:
    """Set ``cfg.launcher``; without an accelerator, make distributed runs use gloo and plain batch norm.

    Args:
        cfg: The config, changed in place.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
    """
    cfg.launcher = launcher
    if get_device() != 'cpu':
        return
    replace_type(cfg.model, 'SyncBN', 'BN')  # torch's SyncBatchNorm refuses CPU tensors
    if launcher == 'none':
        return
    # mmengine would call torch.cuda.set_device whatever the backend; it leaves a group that exists alone.
    if launcher == 'pytorch' and not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    cfg.setdefault('env_cfg', {})['dist_cfg'] = {'backend': 'gloo'}
    if 'model_wrapper_cfg' not in cfg:
        cfg.model_wrapper_cfg = {
            'type': 'MMDistributedDataParallel',
            'device_ids': None,  # required on CPU
            'broadcast_buffers': False,
            'find_unused_parameters': cfg.get('find_unused_parameters', False),
        }


def replace_type(node, old: str, new: str) -> None:
    """Replace ``type=old`` by ``type=new`` in a nested config, in place."""
    if isinstance(node, dict):
        if node.get('type') == old:
            node['type'] = new
        for value in node.values():
            replace_type(value, old, new)
    elif isinstance(node, (list, tuple)):
        for value in node:
            replace_type(value, old, new)
