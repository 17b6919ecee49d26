"""Images and annotation files: readers, checks and conversion. Import its modules by name."""

# The tasks that annotations can serve; one network for several of them is called 'all'.
TASKS = ('detection', 'instance', 'semantic', 'pose', 'classification')
