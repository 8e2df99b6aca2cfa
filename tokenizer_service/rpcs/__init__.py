"""The methods of the tokenizer service, and its messages read and written."""
