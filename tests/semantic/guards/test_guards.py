"""Guards refuse what plainly differs, and leave alone what is only worded otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.semantic.guards import GUARDS, check
from pyrope.semantic.prompt_facts import facts_of

CASES = [
    tuple(line.split("\t"))
    for line in (Path(__file__).parent.parent / "plainly_different.tsv")
    .read_text(encoding="utf-8")
    .splitlines()
]
OTHERS = [
    tuple(line.split("\t")[1:])
    for line in (Path(__file__).parent.parent / "plainly_different_too.tsv")
    .read_text(encoding="utf-8")
    .splitlines()
]
KINDS = sorted({kind for kind, _, _ in CASES})
SAME = [
    tuple(line.split("\t"))
    for line in (Path(__file__).parent.parent / "same_in_other_words.tsv")
    .read_text(encoding="utf-8")
    .splitlines()
]

texts = st.text(max_size=60) | st.lists(
    st.sampled_from(
        [
            "How",
            "do",
            "I",
            "not",
            "convert",
            "5",
            "km",
            "to",
            "miles?",
            "from",
            "A",
            "to",
            "B",
            "“quoted”",
            "v1.2",
            "==",
            "Monday",
            "§",
        ]
    ),
    max_size=12,
).map(" ".join)


def refuses(one: str, other: str) -> str | None:
    return check(facts_of(one), facts_of(other))


@pytest.mark.parametrize("kind", KINDS)
def test_at_least_nine_in_ten_cases_of_each_kind_are_stopped(kind: str) -> None:
    cases = [(one, other) for of, one, other in CASES if of == kind]
    stopped = sum(refuses(one, other) is not None for one, other in cases)
    assert len(cases) >= 40
    assert stopped >= 0.9 * len(cases)


def test_nine_in_ten_cases_of_another_author_are_stopped() -> None:
    stopped = sum(refuses(one, other) is not None for one, other in OTHERS)
    assert len(OTHERS) >= 300
    assert stopped >= 0.9 * len(OTHERS)


def test_hardly_any_pair_that_means_the_same_is_refused() -> None:
    refused = [pair for pair in SAME if refuses(*pair) is not None]
    assert len(SAME) >= 40
    assert len(refused) <= 0.05 * len(SAME), refused


@given(texts, texts)
def test_it_does_not_matter_which_of_the_two_was_there_first(one: str, other: str) -> None:
    assert refuses(one, other) == refuses(other, one)


@given(texts)
def test_no_prompt_is_refused_the_answer_to_itself(text: str) -> None:
    assert refuses(text, text) is None


@given(texts)
def test_case_of_function_words_and_spaces_do_not_matter(text: str) -> None:
    assert refuses(text, f"  {text}\n") is None


@pytest.mark.parametrize(
    ("guard", "one", "other"),
    [
        ("negation", "Is it safe to swim here?", "Is it not safe to swim here?"),
        ("negation", "a careful driver", "a careless driver"),
        ("negation", "能吃这个蘑菇吗", "不能吃这个蘑菇吗"),
        ("opposites", "How do I open the valve?", "How do I close the valve?"),
        ("numbers", "Give me 3 reasons", "Give me 4 reasons"),
        ("numbers", "What is in chapter one?", "What is in chapter two?"),
        ("numbers", "Is 1,000 enough?", "Is 10,000 enough?"),
        ("units", "Is 5 kg much?", "Is 5 lb much?"),
        ("units", "Is 50km/h fast?", "Is 50mph fast?"),
        ("dates", "Are you open on Monday?", "Are you open on Sunday?"),
        ("identifiers", "What is ERR_17_A?", "What is ERR_17_B?"),
        ("identifiers", "What does getName return?", "What does getAge return?"),
        ("identifiers", "What does == do?", "What does != do?"),
        ("quotes", 'Who wrote "Emma"?', 'Who wrote "Ivanhoe"?'),
        ("names", "Trains to Lyon today", "Trains to Nice today"),
        ("question", "When did it start?", "Where did it start?"),
        ("direction", "from euros to yen", "from yen to euros"),
        ("direction", "Is tea better than beer?", "Is beer better than tea?"),
        ("direction", "Did the fox see the hen?", "Did the hen see the fox?"),
        ("direction", "from A -> B", "from B -> A"),
        ("negation", "Why does the motor start?", "Why does the motor refuse to start?"),
        ("negation", "Puis-je fumer ici ?", "Ne puis-je pas fumer ici ?"),
        ("negation", "Comment activer le son ?", "Comment désactiver le son ?"),
        ("opposites", "Concerts next month", "Concerts this month"),
        ("dates", "Wetter im Frühling", "Wetter im Herbst"),
        ("numbers", "Flights on June 3rd", "Flights on 13 June"),
        ("identifiers", "How do I use std::vector?", "How do I use std::map?"),
        ("identifiers", "How do I parse a .csv file?", "How do I parse a .json file?"),
        ("names", "What is Toyota's warranty?", "What is Hyundai's warranty?"),
        ("question", "Wann öffnet das Museum?", "Wo öffnet das Museum?"),
        ("question", "¿Cuándo nació Goya?", "¿Dónde nació Goya?"),
        ("direction", "Trains to Turin from Milan", "Trains to Milan from Turin"),
    ],
)
def test_each_guard_refuses_its_own_kind_and_is_named(guard: str, one: str, other: str) -> None:
    assert refuses(one, other) == guard
    alone = frozenset(GUARDS) - {guard}
    assert check(facts_of(one), facts_of(other), alone) == guard


@pytest.mark.parametrize("guard", sorted(GUARDS))
def test_a_guard_that_is_switched_off_refuses_nothing(guard: str) -> None:
    off = frozenset({guard})
    for _, one, other in CASES:
        assert check(facts_of(one), facts_of(other), off) != guard


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What are the pros and cons of tea?", "What are the cons and pros of tea?"),
        ("cats and dogs", "dogs and cats"),
        ("Is 5.00 dollars enough?", "Is 5 dollars enough?"),
        ("two apples", "2 apples"),
        ("How tall is the Empire State Building?", "how tall is the empire state building"),
        ("What do people in India eat?", "What do Indian people eat?"),
        ("Is the U.S. bigger than Peru?", "Is the US bigger than Peru?"),
        ("don't you think it isn't over?", "do you think it is over?"),
        ("Who won the election?", "Who won the 2016 election?"),
        ("How do I learn chess?", "What is the best way to learn chess?"),
        ("Who is the president of the USA?", "Who is the president of the United States?"),
        ("Trains from Milan to Turin", "Trains to Turin from Milan"),
        ("Flights on 3 June", "Flights on June 3rd"),
        ("I can't log in", "I am unable to log in"),
        ("What if I don't pay my taxes?", "What if I fail to pay my taxes?"),
        ("Je ne peux pas me connecter", "Je n'arrive pas à me connecter"),
        ("What's new?", "What is new?"),
    ],
)
def test_what_is_only_written_otherwise_is_let_pass(one: str, other: str) -> None:
    assert refuses(one, other) is None


def test_long_prompts_are_the_same_only_if_what_is_not_read_is_too() -> None:
    page = "a word of many more " * 1000
    assert refuses(page + "end", page + "end") is None
    changed = page[:10_000] + "X" + page[10_001:]
    assert refuses(page, changed) == "unread"
    assert check(facts_of(page), facts_of(changed), frozenset({"unread"})) is None
