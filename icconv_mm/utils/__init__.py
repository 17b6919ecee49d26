"""What the package shares within itself and with its tools; nothing here is for users."""
