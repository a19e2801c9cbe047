"""`python -m training.evaluate.word_pairs`: print 200 pairs of the lexicon, drawn by a seed, with a verdict each.

A pair is a word and the thing or the place as which it is read. `word_pairs.txt` has the verdicts, which were given by
hand: "yes" if a person who asks for the word would take the target as something near it, otherwise "no".
"""

import argparse
import hashlib
from importlib.resources import files
from pathlib import Path

from allaprima.weights.paths import sketch_folder
from allaprima.weights.prompts.lexicon import LEXICON_FILE, Lexicon
from allaprima.weights.prompts.lexicon_fields import NOTHING

#: Number of pairs, and the share that should be sensible.
PAIRS, TARGET = 200, 0.85
#: Seed of the pairs that have a verdict.
SEED = 2026


def draw(lexicon: Lexicon, seed: int = SEED, count: int = PAIRS) -> list[tuple[str, str]]:
    """Return pairs of words and targets, drawn from all words that have one."""
    placed = [(word, target) for word, target in lexicon.targets.items() if target != NOTHING]
    # By the hash of each word, so that another lexicon changes few of the pairs.
    return sorted(placed, key=lambda pair: hashlib.sha256(f"{seed} {pair[0]}".encode()).digest())[:count]


def verdicts() -> dict[tuple[str, str], bool]:
    """Return the verdicts by pair."""
    lines = (files("training.evaluate") / "word_pairs.txt").read_text("utf-8").splitlines()
    parts = (line.split(" | ") for line in lines)
    return {(word, target): verdict == "yes" for word, target, verdict in parts}


def main() -> None:
    """Print the pairs and the share of sensible ones."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate.word_pairs", description=__doc__)
    parser.add_argument("--model", type=Path, default=sketch_folder(), help="model folder")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    pairs, known = draw(Lexicon(options.model / LEXICON_FILE), options.seed), verdicts()
    for pair in pairs:
        verdict = {True: "yes", False: "no", None: "?"}[known.get(pair)]
        print(" | ".join((*pair, verdict)))
    judged = [known[pair] for pair in pairs if pair in known]
    if judged:
        print(f"{len(judged)} of {len(pairs)} pairs have a verdict; {sum(judged) / len(judged):.1%} are sensible")
        print(f"target {TARGET:.0%}")


if __name__ == "__main__":
    main()
