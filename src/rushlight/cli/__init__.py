"""The command line."""

from rushlight.cli.app import main

__all__ = ["main"]
