"""Fuzz targets: what they check, how they are run, and the inputs that were found worth keeping."""
