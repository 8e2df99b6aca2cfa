"""The model service as it is, but with another engine: one that counts, and starts in a second.

`python -m tests.fakes.counting_server` takes the flags of `python -m model_service`;
`ENGINE_MODULE` names an engine other than the one that counts.
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
        engine_module = os.environ.get("ENGINE_MODULE", "tests.fakes.counting_engine")
        server = ModelServer(settings, os.environ, engine_module=engine_module)
        return await server.run()

    program.run(serve())
