"""Which folder of ``icconv_mm.tasks`` belongs to which library: the only place that says so.

A folder is imported when it is asked for, by name, because importing it imports its library.
"""

import importlib
from types import ModuleType

# Import name of a task library, which is also the default_scope of its configs -> its folder of icconv_mm.tasks.
TASKS = {
    'mmdet': 'detection',
    'mmseg': 'segmentation',
    'mmpose': 'pose',
    'mmpretrain': 'classification',
}
# Libraries whose configs leave a backbone's out_indices out, as their own ResNets return the last map alone.
ONE_MAP = ('mmpose', 'mmpretrain')


def import_task(library: str, module: str = '') -> ModuleType:
    """Import the folder of the task of a library, or a module of it; the classes of the folder are registered then.

    Args:
        library: Import name of the library, one of :data:`TASKS`.
        module: Name of a module within.
    """
    return importlib.import_module(f'icconv_mm.tasks.{TASKS[library]}' + (f'.{module}' if module else ''))
