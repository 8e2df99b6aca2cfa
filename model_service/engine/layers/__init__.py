"""Parts of a model that are ours in place of Hugging Face's, and the devices that parts are on."""
