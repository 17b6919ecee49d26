"""What a user can mend."""


class RuntimeInputError(ValueError):
    """A file, a picture or an option cannot be used; the message is one sentence that says which, and why."""
