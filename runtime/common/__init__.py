"""What every room shares: whole files, plugins, isolation, the machine."""
