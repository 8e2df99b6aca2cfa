"""What the servicers delegate to: the model that is served, its sessions, and scoring."""
