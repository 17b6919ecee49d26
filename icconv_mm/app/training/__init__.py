"""Training, the configs that it writes for images of one's own, and the search of dilations."""
