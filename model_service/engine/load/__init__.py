"""From a folder to a model on its devices."""
