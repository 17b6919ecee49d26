"""Steps of layers: functions of tensors with compiled kernels, which are no operators and not for users.

They have no definition: what torch computes elsewhere is their reference.
"""
