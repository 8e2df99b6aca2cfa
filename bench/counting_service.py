"""The model service as it is, with an engine that counts: `python -m bench.counting_service`."""

import os

from bench import counting_engine
from model_service.front.server import ModelServer
from model_service.front.settings import ModelSettings
from rpc import json_lines, program


async def serve(settings: ModelSettings) -> int | str:
    """Runs the server in the loop that it is made in."""
    return await ModelServer(settings, os.environ, engine_module=counting_engine.__name__).run()


def main() -> None:
    """Takes the flags of `python -m model_service`."""
    settings = ModelSettings.from_command_line()
    json_lines.configure(settings.log_level)
    program.run(serve(settings))


if __name__ == "__main__":
    main()
