"""Reading files of torch without running what they hold: a pickle of plain data and tensors, or nothing.

``plain_pickle`` runs the opcodes of a pickle on ``plain_objects``; ``torch_files`` finds the pickles and tensors in the
layouts that torch has written; ``torch_allow_list`` and ``log_buffers`` say which names of torch and mmengine a
checkpoint may hold.
"""
