"""Writers of datasets for other tools: one module for each format, whose files the readers read again equal."""
