"""Contender: OpenVINO GenAI's continuous batching, in process."""

import os
import subprocess
import sys
from pathlib import Path

from bench.peers.rounds import Round, answer

# The format that weights are exported in, and what the plugin computes with.
PRECISIONS = {"fp32": ("fp32", "f32"), "bf16": ("fp16", "bf16"), "int8": ("int8", "bf16")}
FROM_GGUF = False


def export(folder: Path, weight_format: str, cache: Path) -> Path:
    """Returns the folder of the exported model; exports it unless that was done before."""
    target = cache / f"{folder.name}-{weight_format}"
    if not (target / "openvino_model.xml").exists():
        tool = Path(sys.executable).with_name("optimum-cli")
        command = [str(tool), "export", "openvino", "--task", "text-generation-with-past"]
        command += ["--model", str(folder), "--weight-format", weight_format, str(target)]
        subprocess.run(command, stdout=sys.stderr, check=True)
    return target


def main() -> None:
    """Loads the model named by the first argument, in the precision named by the second.

    The third argument is the folder where exported models are kept.
    """
    import numpy as np
    import openvino
    import openvino_genai

    folder, precision, cache = sys.argv[1:4]
    weight_format, hint = PRECISIONS[precision]
    model = export(Path(folder), weight_format, Path(cache))
    threads = int(os.environ["OMP_NUM_THREADS"])
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.enable_prefix_caching = False  # the same work as the others, in every round
    pipeline = openvino_genai.ContinuousBatchingPipeline(
        str(model),
        scheduler,
        "CPU",
        {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads},
    )
    number = 0

    def run(request: Round) -> None:
        nonlocal number
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = request.new_tokens
        config.ignore_eos = True
        config.do_sample = False
        tensors = [openvino.Tensor(np.array([ids], np.int64)) for ids in request.prompts]
        open_handles: dict[int, openvino_genai.GenerationHandle] = {}
        begun = 0
        request.start()
        while begun < len(tensors) or open_handles:
            for index in request.arrived(begun):
                open_handles[index] = pipeline.add_request(number, tensors[index], config)
                number += 1
                begun += 1
            if not open_handles:
                request.wait_for(begun)
                continue
            pipeline.step()
            for index, handle in list(open_handles.items()):
                if handle.can_read():
                    for output in handle.read().values():
                        request.note(index, output.generated_ids)
                if handle.get_status() != openvino_genai.GenerationStatus.RUNNING:
                    del open_handles[index]

    answer(run)


if __name__ == "__main__":
    main()
