"""`python -m tokenizer_service`."""

from tokenizer_service.server import main

main()
