"""What a row may ask of the sampler: names of the benchmark's cases, and their options."""

WARPERS: dict[str, dict[str, object]] = {
    "greedy": {"do_sample": False},
    "temperature": {"temperature": 0.8},
    "top_k": {"temperature": 0.8, "top_k": 50},
    "top_k, top_p": {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    "top_p": {"temperature": 0.7, "top_p": 0.9},
    "min_p": {"min_p": 0.05},
    "typical_p": {"typical_p": 0.9},
    "epsilon_cutoff": {"epsilon_cutoff": 3e-4},
    "eta_cutoff": {"eta_cutoff": 3e-4},
    "repetition_penalty": {"top_k": 50, "repetition_penalty": 1.2},
    "no_repeat_ngram_size": {"top_k": 50, "no_repeat_ngram_size": 3},
    "frequency_penalty": {"top_k": 50, "frequency_penalty": 0.2, "presence_penalty": 0.5},
    "logit_bias": {"top_k": 50, "logit_bias": ((100, 2.0), (200, -3.0))},
}
