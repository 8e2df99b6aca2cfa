"""Both services on this machine, in one command. `python -m deploy.local --help` says more."""
