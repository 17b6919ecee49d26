"""Makes `tests` a package: a spawned process imports test modules by name, and a library installs one of that name."""
