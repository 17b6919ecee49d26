"""What the application knows of each task library."""
