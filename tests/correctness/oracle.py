"""Which ids warpers keep and how probable they are, from their definitions, in float64.

Nothing here is shared with the service or with Hugging Face.
"""

import numpy as np

TOP_H_IDS = 100


def distribution(logits: np.ndarray, config: dict, nudge: float = 0.0) -> np.ndarray:
    """Returns the probability of every id, `[V]` float64, 0 where it is removed.

    Args:
        logits: `[V]`.
        config: warpers, by the names of `GenerationConfig`.
        nudge: how much looser each bound is drawn, negative for stricter; what a
            rounding error of that size could change.
    """
    scores = logits.astype(np.float64) / config.get("temperature", 1.0)
    for name, keep in KEEP.items():
        if config.get(name):
            scores = np.where(keep(scores, config[name], nudge), scores, -np.inf)
    return softmax(scores)


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def entropy(probs: np.ndarray) -> float:
    kept = probs[probs > 0]
    return float(-(kept * np.log(kept)).sum())


def first_up_to(order: np.ndarray, amounts: np.ndarray, limit: float) -> np.ndarray:
    """Keeps ids in an order while the sum of the amounts before them is below a limit."""
    before = np.concatenate([[0.0], amounts[order].cumsum()[:-1]])
    kept = np.zeros(len(amounts), bool)
    kept[order[before < limit]] = True
    return kept


def _top_n_sigma(scores: np.ndarray, n: float, nudge: float) -> np.ndarray:
    deviation = scores[np.isfinite(scores)].std()
    return scores >= scores.max() - n * deviation * (1 + nudge)


def _top_h(scores: np.ndarray, share: float, nudge: float) -> np.ndarray:
    order = np.argsort(-scores)[:TOP_H_IDS]
    probs = softmax(scores[order])
    terms = -np.where(probs > 0, probs * np.log(np.maximum(probs, 1e-300)), 0.0)
    kept = np.zeros(len(scores), bool)
    kept[order[terms.cumsum() <= share * terms.sum() + nudge]] = True
    kept[order[0]] = True
    return kept


def _top_k(scores: np.ndarray, k: int, _: float) -> np.ndarray:
    return scores >= np.sort(scores)[-min(k, len(scores))]


def _top_p(scores: np.ndarray, p: float, nudge: float) -> np.ndarray:
    return first_up_to(np.argsort(-scores), softmax(scores), p + nudge)


def _min_p(scores: np.ndarray, share: float, nudge: float) -> np.ndarray:
    probs = softmax(scores)
    return probs >= share * probs.max() * (1 - nudge)


def _typical_p(scores: np.ndarray, mass: float, nudge: float) -> np.ndarray:
    probs = softmax(scores)
    surprise = -np.log(np.maximum(probs, 1e-300))
    return first_up_to(np.argsort(np.abs(surprise - entropy(probs))), probs, mass + nudge)


def _epsilon(scores: np.ndarray, epsilon: float, nudge: float) -> np.ndarray:
    probs = softmax(scores)
    return (probs >= epsilon * (1 - nudge)) | (probs == probs.max())


def _eta(scores: np.ndarray, epsilon: float, nudge: float) -> np.ndarray:
    probs = softmax(scores)
    return _epsilon(scores, min(epsilon, np.sqrt(epsilon) * np.exp(-entropy(probs))), nudge)


KEEP = {
    "top_n_sigma": _top_n_sigma,
    "top_h": _top_h,
    "top_k": _top_k,
    "top_p": _top_p,
    "min_p": _min_p,
    "typical_p": _typical_p,
    "epsilon_cutoff": _epsilon,
    "eta_cutoff": _eta,
}
"""In the order of application."""
