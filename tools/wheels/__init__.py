"""Wheels for all platforms, built on one Linux machine without containers: `make wheels`."""
