"""The methods of the model service, and the messages that they answer with."""
