"""Which implementation a call gets: backends, their limits, measured kernels, the compiled library, the fast path."""
