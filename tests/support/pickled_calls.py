"""Objects whose pickles name a function to be called, for files that must be refused."""


class Call:
    """Pickles as the call ``function(*args)``."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call
