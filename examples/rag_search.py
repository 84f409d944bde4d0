"""Search for retrieval-augmented generation, with a cache that stays true.

A small handbook is embedded by the server itself (`EMBEDDER wordllama`, which needs no network).
Questions are put to it; what is found is what a language model would be given to answer from. The
second time, and in other words, a question is answered from memory; and when the handbook changes,
so do the answers, at once.

    make run                                 # in another terminal
    python examples/rag_search.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pyrope.client import Client, SearchResult

INDEX = "handbook"
HANDBOOK = {
    "leave": ("people", "Employees have 28 days of paid holiday a year, and may carry over five."),
    "sick": ("people", "Whoever is ill tells their manager before nine in the morning."),
    "remote": ("people", "Working from home is fine on up to three days a week."),
    "laptop": ("it", "A broken laptop is replaced by the help desk within one working day."),
    "password": ("it", "Passwords are reset at the self-service portal, with your phone at hand."),
    "vpn": ("it", "The VPN is needed for the finance system, and for nothing else."),
    "travel": ("money", "Trains are booked in second class; flights need an approval."),
    "meals": ("money", "On business trips, meals are paid for up to 40 euros a day."),
    "invoice": ("money", "Invoices are paid within 30 days of their arrival."),
}


def fill(client: Client[str]) -> None:
    """Create the index, and add the handbook: texts go in, the server makes vectors of them."""
    client.create(INDEX, embedder="wordllama", type="FLAT", if_new=True)
    for name, (topic, text) in HANDBOOK.items():
        client.add(INDEX, name, text=text, attributes={"topic": topic, "text": text})


def ask(client: Client[str], question: str, *, topic: str | None = None) -> SearchResult[str]:
    """Find two passages for a question, and show them and where the answer came from."""
    found = client.search(
        INDEX,
        text=question,
        count=2,
        attributes=True,
        info=True,
        filter=None if topic is None else f'.topic == "{topic}"',
    )
    print(f"\n{question}  [{found.info and found.info.cache}]")
    for hit in found:
        print(f"  {hit.score:.2f}  {hit.id}: {hit.attributes and hit.attributes['text']}")
    return found


def prompt(question: str, passages: SearchResult[str]) -> str:
    """What a language model would be asked."""
    lines = [f"- {hit.attributes['text']}" for hit in passages if hit.attributes]
    return "\n".join(["Answer from these passages alone:", *lines, f"Question: {question}"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Search a handbook, with caching.")
    parser.add_argument("--url", default="redis://127.0.0.1:7379")
    with Client(parser.parse_args(arguments).url) as client:
        fill(client)

        question = "How many days of holiday do I get?"
        print(prompt(question, ask(client, question)))
        ask(client, question)
        ask(client, "How much is paid for meals on a trip?", topic="money")

        # Other words for the same: an alias says so. It is followed from the next search on.
        client.aliases.set(INDEX, "How many vacation days are there?", question)
        ask(client, "how many vacation days are there?")

        # The handbook changes. Cached answers know at once.
        text = "From next year on, employees have 30 days of paid holiday a year."
        client.add(INDEX, "leave", text=text, attributes={"topic": "people", "text": text})
        ask(client, question)

        stats = client.cache.stats(INDEX)
        print(f"\n{stats.hits} of {stats.hits + stats.misses} searches came from memory")
        client.drop(INDEX)


if __name__ == "__main__":
    main()
