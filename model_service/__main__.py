"""`python -m model_service`."""

from model_service.front.server import main

if __name__ == "__main__":
    main()
