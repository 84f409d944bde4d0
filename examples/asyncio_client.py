"""Many searches at a time with asyncio, while vectors go on changing.

make run                                 # in another terminal
python examples/asyncio_client.py
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pyrope.client import AsyncClient, RetryPolicy

INDEX = "points"
DIM, VECTORS, SEARCHES, SEARCHERS = 64, 5000, 400, 20


async def write(client: AsyncClient[str], vectors: NDArray[np.float64]) -> None:
    """Move vectors about, one after the other."""
    for number in range(100):
        await client.add(INDEX, f"p{number}", vectors[number] * -1.0)


async def search(client: AsyncClient[str], queries: NDArray[np.float64]) -> int:
    """Search for vectors; returns how many found themselves first."""
    right = 0
    for number in queries:
        found = await client.search(INDEX, element=f"p{number}", count=3)
        right += found.ids[0] == f"p{number}"
    return right


async def run(url: str) -> None:
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((VECTORS, DIM))
    # A server that is busy is asked again, for two seconds at the most.
    async with AsyncClient(
        url, retry=RetryPolicy(total_s=2.0), max_connections=SEARCHERS
    ) as client:
        await client.create(INDEX, DIM, if_new=True)
        # Several pieces are on their way at a time; the numbers may be of any kind.
        new = await client.add_many(INDEX, [f"p{number}" for number in range(VECTORS)], vectors)
        print(f"{new} new vectors, {await client.count(INDEX)} in all")

        chosen = rng.integers(100, VECTORS, (SEARCHERS, SEARCHES // SEARCHERS))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write(client, vectors))
            searching = [tasks.create_task(search(client, part)) for part in chosen]
        right = sum(task.result() for task in searching)
        print(f"{right} of {SEARCHES} vectors found themselves, while 100 others were moved")

        # Many in one command, and a walk over all the ids.
        batch = await client.search_many(INDEX, vectors[100:110], count=1)
        print("together:", *(found.ids[0] for found in batch))
        print(len([each async for each in client.scan(INDEX)]), "ids")
        await client.drop(INDEX)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Search concurrently.")
    parser.add_argument("--url", default="redis://127.0.0.1:7379")
    asyncio.run(run(parser.parse_args(arguments).url))


if __name__ == "__main__":
    main()
