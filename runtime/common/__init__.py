"""Helpers of all folders: atomic files, plugins, isolation, facts of the machine."""
