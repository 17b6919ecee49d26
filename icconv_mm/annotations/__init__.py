"""Images and annotation files: readers, checks and conversion. Its modules are imported by name."""

# What annotations may be for; a network for several is called 'all'.
TASKS = ('detection', 'instance', 'semantic', 'pose', 'classification')
