"""What every folder shares: atomic files, plugins, isolation, facts of the machine."""
