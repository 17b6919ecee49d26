"""Images and annotation files: readers, checks and conversion. Its modules are imported by name."""
