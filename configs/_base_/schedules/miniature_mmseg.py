# The schedule of the miniature set in mmseg's runtime.
_base_ = ['mmseg::_base_/default_runtime.py', './miniature.py']

default_hooks = _base_.iteration_hooks
log_processor = _base_.iteration_log
