"""The doors: one function a command, which parses, calls one verb and prints."""

from palette.cli.app import main as main
