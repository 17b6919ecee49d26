"""Steps of layers that have compiled kernels but are no operators of ``torch.library``.

``integrated_norm`` and ``pyramid_sum`` have a reference and limits, and :mod:`icconv_mm.ops.dispatch.backend` chooses.
``batch_norm``, ``packed_conv`` and ``cudnn_conv`` choose by themselves (``own_choice``): what torch computes elsewhere
is their reference.
"""
