"""Questions of one's own, for where no labelled ones are at hand: few kinds, and easy."""

from __future__ import annotations

import numpy as np

from benchmarks.harness.labelled_pairs import LabelledPairs

_WAYS = (
    "How do I {verb} a {thing}?",
    "What is the best way to {verb} a {thing}?",
    "How can I {verb} my {thing}?",
    "What should I know to {verb} a {thing}?",
    "Which way should I {verb} the {thing}?",
    "Tell me how people {verb} a {thing}",
)
_VERBS = ("repair", "paint", "carry", "choose", "clean", "build", "insure", "measure")
_THINGS = ("boat", "violin", "kettle", "ladder", "garden", "camera", "carpet", "drum", "piano")
_DIM = 48
_MISLABELLED = 0.05


def made_pairs(count: int, seed: int) -> LabelledPairs:
    """Pairs of which half ask for the same in other words, and half for something close by.

    Vectors are drawn around one of each meaning; those of meanings that share a word are nearer.
    Some pairs that are the same are labelled as different, as people do.
    """
    generator = np.random.default_rng(seed)
    of_verb = generator.standard_normal((len(_VERBS), _DIM))
    of_thing = generator.standard_normal((len(_THINGS), _DIM))
    meanings = [(verb, thing) for verb in range(len(_VERBS)) for thing in range(len(_THINGS))]
    questions = [
        way.format(verb=_VERBS[verb], thing=_THINGS[thing])
        for verb, thing in meanings
        for way in _WAYS
    ]
    centres = np.repeat(
        [of_verb[verb] + of_thing[thing] for verb, thing in meanings], len(_WAYS), 0
    )
    vectors = (centres + 0.5 * generator.standard_normal(centres.shape)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows, labels = [], []
    for _ in range(count):
        meaning = int(generator.integers(len(meanings)))
        verb, thing = meanings[meaning]
        same = bool(generator.random() < 0.5)
        if not same:
            verb = int(verb + generator.integers(1, len(_VERBS))) % len(_VERBS)
        other = verb * len(_THINGS) + thing
        one_way, other_way = generator.permutation(len(_WAYS))[:2].tolist()
        rows.append((meaning * len(_WAYS) + one_way, other * len(_WAYS) + other_way))
        labels.append(int(same and generator.random() >= _MISLABELLED))
    return LabelledPairs(questions, vectors, np.array(rows, np.int64), np.array(labels, np.int64))
