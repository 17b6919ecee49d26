"""The tasks that annotations can serve."""

# One network for several of them is called 'all'.
TASKS = ('detection', 'instance', 'semantic', 'pose', 'classification')
