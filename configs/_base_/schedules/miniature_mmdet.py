# The schedule of the miniature set in mmdet's runtime.
_base_ = ['mmdet::_base_/default_runtime.py', './miniature.py']

default_hooks = _base_.iteration_hooks
log_processor = _base_.iteration_log
