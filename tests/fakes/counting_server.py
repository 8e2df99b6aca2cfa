"""The model service as it is, but with the engine that counts: starts in a second.

`python -m tests.fakes.counting_server` takes the flags of `python -m model_service`.
"""

import os

from model_service.front.server import ModelServer
from model_service.front.settings import ModelSettings
from rpc import json_lines, program

if __name__ == "__main__":
    settings = ModelSettings.from_command_line()
    json_lines.configure(settings.log_level)

    async def serve() -> int:
        """Runs the server in the loop that it is made in."""
        server = ModelServer(settings, os.environ, engine_module="tests.fakes.counting_engine")
        return await server.run()

    program.run(serve())
