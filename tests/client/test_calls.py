"""Every call against a real server, blocking and in asyncio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calling import calling
from pyrope.client import (
    BulkOptions,
    CacheLevel,
    CachePolicy,
    Client,
    Cluster,
    ClusterAdvice,
    Element,
    Hit,
    IndexType,
    Metric,
    NearestCluster,
    clusters,
)
from pyrope.errors import (
    BusyError,
    CommandError,
    DimensionError,
    ExistsError,
    NoIndexError,
)
from servers import RunningServer, running_server

ROWS = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float64)
IDS = ["a", "b", "c", "d"]
KINDS: list[dict[str, Any] | None] = [{"n": 1}, {"n": 2, "t": ["x", None]}, None, {"n": 4}]


def films(calls: Any, **options: Any) -> Any:
    """An index of four vectors."""
    calls.create("films", 3, **({"type": "FLAT"} | options))
    assert calls.add_many("films", IDS, ROWS, KINDS) == 4
    return calls


# -- indexes -------------------------------------------------------------------------------------


def test_an_index_is_created_described_changed_and_dropped(calls: Any) -> None:
    calls.create(
        "i", 8, metric=Metric.L2, type=IndexType.IVF_PQ, nlist=16, nprobe="AUTO", pqm=4,
        cache=["EXACT", CacheLevel.ALIAS], cache_ttl_s=7.5,
    )  # fmt: skip
    told = calls.info("i")
    assert (told.name, told.tenant, told.dim, told.count) == ("i", "default", 8, 0)
    assert (told.metric, told.type, told.nlist) == (Metric.L2, IndexType.IVF_PQ, 16)
    assert told.cache_levels == {CacheLevel.EXACT, CacheLevel.ALIAS}
    assert told.embedder is None
    assert told.more["merging"] in {0, 1}
    calls.alter("i", nprobe=5, cache="OFF")
    assert (calls.info("i").nprobe, calls.info("i").cache_levels) == (5, frozenset())
    assert calls.cache.policy("i").ttl_s == 7.5
    assert calls.list() == ["i"]
    assert calls.drop("i") is True
    assert calls.drop("i") is False
    assert calls.list() == []


def test_creating_twice_is_an_error_unless_it_may_be_there(calls: Any) -> None:
    calls.create("i", 8)
    with pytest.raises(ExistsError, match="exists already"):
        calls.create("i", 8)
    calls.create("i", 8, if_new=True)
    with pytest.raises(ExistsError):
        calls.create("i", 9, if_new=True)


def test_building_returns_when_it_is_done(calls: Any) -> None:
    calls.create("i", 4, type="HNSW", ef=80, m=8, ef_construction=50)
    calls.add_many(
        "i", [f"v{n}" for n in range(300)], np.random.default_rng(3).normal(size=(300, 4))
    )
    calls.build("i")
    told = calls.info("i")
    assert (told.head_count, told.count, told.ef, told.m) == (0, 300, 80, 8)


def test_an_option_that_does_not_exist_is_not_sent(calls: Any) -> None:
    with pytest.raises(TypeError, match="unknown: dimension"):
        calls.create("i", 8, dimension=3)
    with pytest.raises(TypeError, match="unknown: limit"):
        calls.search("i", [1.0], limit=3)
    with pytest.raises(TypeError, match="unknown: query"):
        calls.search_many("i", [[1.0]], query="only of one")
    with pytest.raises(TypeError, match="unknown: ttl"):
        calls.cache.set_policy("i", ttl=3)


# -- vectors -------------------------------------------------------------------------------------


def test_vectors_are_added_read_changed_and_deleted(calls: Any) -> None:
    films(calls)
    assert calls.add("films", "e", [1, 1, 0], attributes={"n": 5}, expires_s=100) is True
    assert calls.add("films", "e", [1, 1, 1]) is False
    assert calls.add("films", "e", [0, 1, 1], if_new=True) is None
    assert calls.add("films", "f", [0, 1, 1], if_there=True) is None
    found = calls.get("films", "e", vector=True)
    assert isinstance(found, Element)
    assert (found.id, found.attributes, found.ttl_s) == ("e", {"n": 5}, None)
    assert found.vector is not None
    assert found.vector.dtype == np.float32
    assert found.vector.tolist() == [1, 1, 1]
    assert calls.get("films", "none") is None
    assert calls.get("films", "a").vector is None
    assert calls.exists("films", b"e") is True
    assert calls.count("films") == 5
    assert calls.delete("films", "e", "f", b"a") == 2
    assert calls.exists("films", "e") is False
    with pytest.raises(ValueError, match="at least one id"):
        calls.delete("films")


def test_an_expiry_is_told(calls: Any) -> None:
    films(calls)
    calls.add("films", "e", [1, 1, 0], expires_s=100)
    assert 98 <= calls.get("films", "e").ttl_s <= 100


def test_attributes_are_replaced_and_removed(calls: Any) -> None:
    films(calls)
    assert calls.get_attributes("films", "b") == {"n": 2, "t": ["x", None]}
    assert calls.get_attributes("films", "c") is None
    assert calls.set_attributes("films", "c", {"é": 1.5}) is True
    assert calls.get_attributes("films", "c") == {"é": 1.5}
    assert calls.set_attributes("films", "c", None) is True
    assert calls.get_attributes("films", "c") is None
    assert calls.set_attributes("films", "none", {}) is False


def test_ids_are_walked_over_page_by_page(calls: Any) -> None:
    films(calls)
    assert sorted(calls.scan("films", 3)) == IDS
    page = calls.scan_page("films", count=3)
    rest = calls.scan_page("films", page.cursor)
    assert sorted(page.ids + rest.ids) == IDS


def test_ids_come_as_bytes_where_that_is_asked_for(server: RunningServer) -> None:
    with Client(port=server.port, decode_ids=False) as calls:
        films(calls)
        calls.add("films", b"\xff\x00", [1, 1, 1])
        assert b"\xff\x00" in set(calls.scan("films"))
        found = calls.get("films", b"\xff\x00")
        assert found is not None
        assert found.id == b"\xff\x00"
        assert calls.search("films", [1, 1, 1], count=1).ids == [b"\xff\x00"]


def test_ids_that_are_no_text_come_back_as_text_that_stands_for_them(calls: Any) -> None:
    films(calls)
    calls.add("films", b"\xff\x00", [1, 1, 1])
    found = calls.search("films", [1, 1, 1], count=1).ids
    assert calls.delete("films", *found) == 1


# -- many ----------------------------------------------------------------------------------------

SMALL = BulkOptions(block_vectors=3, in_flight=2)


def test_many_vectors_arrive_whatever_the_pieces(calls: Any) -> None:
    calls.create("i", 5, type="FLAT")
    rows = np.random.default_rng(5).normal(size=(32, 5))[::2, ::-1]
    names = [f"v{number}" for number in range(16)]
    assert calls.add_many("i", names[:5], rows[:5], options=SMALL) == 5
    assert calls.add_many("i", names, rows, options=SMALL) == 11
    for name, row in zip(names, rows, strict=True):
        found = calls.get("i", name, vector=True)
        assert np.array_equal(found.vector, row.astype(np.float32))


def test_of_an_id_that_is_given_twice_the_last_one_counts_in_any_piece(calls: Any) -> None:
    calls.create("i", 1, type="FLAT")
    names = ["a", "b", "c", "d", "a", "e", "b"]
    rows = np.arange(1, 8)[:, None]
    attributes = [{"n": number} for number in range(7)]
    assert calls.add_many("i", names, rows, attributes, options=SMALL) == 5
    kept = {name: calls.get("i", name, vector=True) for name in "abcde"}
    assert {name: each.vector[0] for name, each in kept.items()} == {
        "a": 5, "b": 7, "c": 3, "d": 4, "e": 6,
    }  # fmt: skip
    assert kept["a"].attributes == {"n": 4}


def test_what_does_not_fit_is_refused_before_anything_is_sent(calls: Any) -> None:
    calls.create("i", 3)
    with pytest.raises(ValueError, match="2 ids for 3 vectors"):
        calls.add_many("i", ["a", "b"], np.ones((3, 3)))
    with pytest.raises(ValueError, match="1 attributes for 2 ids"):
        calls.add_many("i", ["a", "b"], np.ones((2, 3)), [{}])
    late = np.ones((20, 3))
    late[19, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        calls.add_many("i", [str(number) for number in range(20)], late, options=SMALL)
    assert calls.count("i") == 0


def test_a_refusal_says_how_many_vectors_are_written(calls: Any) -> None:
    calls.create("i", 2)
    names = [f"v{number}" for number in range(12)] + ["x" * 100_000]
    with pytest.raises(CommandError, match="invalid id") as refused:
        calls.add_many("i", names, np.ones((13, 2)), options=SMALL)
    assert refused.value.__notes__ == ["12 of 13 vectors are written for certain; others may be"]
    assert calls.count("i") == 12


def test_sizes_of_pieces_have_a_lower_bound() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        BulkOptions(in_flight=0)
    assert BulkOptions(block_bytes=100).rows(1000) == 1
    assert BulkOptions(block_bytes=8000).rows(100) == 20
    assert BulkOptions(block_vectors=7).rows(1) == 7


# -- search --------------------------------------------------------------------------------------


def test_hits_come_nearest_first_with_scores(calls: Any) -> None:
    films(calls)
    found = calls.search("films", ROWS[0], count=3)
    assert [hit.id for hit in found] == found.ids == ["a", "b", found[2].id]
    assert found.scores.dtype == np.float32
    assert found.scores.tolist() == pytest.approx([1, 0.8, 0])
    assert len(found) == 3
    assert found.info is None
    assert found[0] == Hit("a", found[0].score)
    assert found[:1] == (found[0],)


def test_attributes_and_filters(calls: Any) -> None:
    films(calls)
    found = calls.search("films", element="a", filter=".n >= 2", attributes=True)
    assert [(hit.id, hit.attributes) for hit in found] == [
        ("b", {"n": 2, "t": ["x", None]}), ("d", {"n": 4}),
    ]  # fmt: skip
    everything = calls.search("films", element="a", attributes=True)
    assert {hit.id: hit.attributes for hit in everything}["c"] is None
    assert calls.search("films", element="a", epsilon=0.3).ids == ["a", "b"]


def test_how_an_answer_came_about_is_told(calls: Any) -> None:
    films(calls)
    first = calls.search("films", ROWS[1], info=True).info
    again = calls.search("films", ROWS[1], info=True, attributes=True).info
    assert (first.cache, again.cache) == ("miss", "exact")
    assert (first.metric, first.direction) == (Metric.COSINE, "higher")
    assert first.certified_recall == 1.0
    assert first.request_id != again.request_id
    assert first.latency_us["total"] >= 0
    assert first.adjustment is None


def test_several_searches_in_one_command(calls: Any) -> None:
    films(calls)
    found = calls.search_many("films", ROWS[::-1], count=1, info=True, exact=True, cache="OFF")
    assert [each.ids for each in found] == [["d"], ["c"], ["b"], ["a"]]
    assert {each.info.cache for each in found} == {"off"}


def test_effort_is_passed_on(calls: Any) -> None:
    calls.create("i", 3, type="HNSW")
    calls.add("i", "a", [1, 0, 0])
    info = calls.search(
        "i", [1, 0, 0], ef=33, max_scans=1000, info=True, session="s", query="q"
    ).info
    assert (info.ef, info.max_scans) == (33, 1000)


def test_every_option_of_searches_is_understood(calls: Any) -> None:
    films(calls)
    options: dict[str, Any] = {
        "count": np.int64(2), "attributes": True, "info": True, "filter": ".n > 0", "epsilon": 2.0,
        "ef": 10, "nprobe": 3, "cache": "REFRESH", "min_recall": 0.5, "basis": "CERTIFIED",
        "timeout_s": 5.0,
    }  # fmt: skip
    assert calls.search("films", ROWS[0], **options, max_scans=9, query="q", session="s").ids
    assert len(calls.search_many("films", ROWS, **options, exact=True)) == 4


def test_a_miss_of_the_cache_alone_is_busy_and_is_not_tried_again(calls: Any) -> None:
    films(calls)
    with pytest.raises(BusyError, match="CACHE ONLY"):
        calls.search("films", ROWS[0], cache="ONLY")
    calls.search("films", ROWS[0])
    assert calls.search("films", ROWS[0], cache="ONLY").ids[0] == "a"


def test_errors_are_typed(calls: Any) -> None:
    films(calls)
    with pytest.raises(NoIndexError, match="no such index 'none'"):
        calls.count("none")
    with pytest.raises(DimensionError, match="got 2 but index has 3"):
        calls.search("films", [1, 2])
    with pytest.raises(CommandError, match="FILTER"):
        calls.search("films", [1, 2, 3], filter=".n >=")
    with pytest.raises(TypeError, match="exactly one"):
        calls.search("films")


# -- caches, aliases, clusters -------------------------------------------------------------------


def test_caches_are_counted_emptied_and_told_what_they_may_do(calls: Any) -> None:
    films(calls)
    for _ in range(3):
        calls.search("films", ROWS[2], count=1)
    stats = calls.cache.stats("films")
    assert (stats.hits, stats.misses, stats.entries) == (2, 1, 1)
    assert stats.hits_by_level["exact"] == 2
    assert stats.hit_ratio == pytest.approx(2 / 3)
    assert stats.nbytes > 0
    assert "audits" in stats.more
    assert calls.cache.invalidate("films", "c") == 1
    assert calls.cache.stats("films").evicted["invalidated"] == 1
    calls.search("films", ROWS[2])
    calls.cache.flush("films")
    assert calls.cache.stats("films").entries == 0
    calls.cache.flush()
    changed = CachePolicy(frozenset({CacheLevel.EXACT}), 60.0, 10_000, 50, 0.9, True, 12.5)  # noqa: FBT003 - in their order
    calls.cache.set_policy(
        "films", levels=changed.levels, ttl_s=60, max_bytes=10_000, candidates=50, min_recall=0.9,
        certified=True, hot_writes=12.5,
    )  # fmt: skip
    assert calls.cache.policy("films") == changed
    calls.cache.set_policy("films", certified=False)
    assert calls.cache.policy("films").certified is False


def test_aliases_of_texts_and_of_vectors(calls: Any) -> None:
    films(calls)
    calls.aliases.set("films", "space film", "Science Fiction", confidence=0.75, expires_s=50)
    calls.aliases.set("films", ROWS[0], ROWS[1])
    found = calls.aliases.get("films", "SPACE  FILM")
    assert (found.canonical.casefold(), found.confidence) == ("science fiction", 0.75)
    assert (found.source, found.suspended, found.hits) == ("manual", False, 0)
    assert 48 <= found.ttl_s <= 50
    vector = calls.aliases.get("films", ROWS[0])
    assert np.array_equal(vector.canonical, ROWS[1].astype(np.float32))
    assert vector.ttl_s is None
    assert calls.aliases.get("films", "none") is None
    assert len(list(calls.aliases.list("films"))) == 2
    assert len(calls.aliases.list_page("films").aliases) == 2
    assert calls.aliases.delete("films", "space film") is True
    assert calls.aliases.delete("films", "space film") is False
    calls.aliases.set("films", "fp32", "Single precision")
    assert calls.aliases.get("films", "FP32").canonical == "Single precision"


def test_all_aliases_come_over_several_pages(calls: Any) -> None:
    films(calls)
    wanted = {f"alias {number}" for number in range(150)}
    for alias in wanted:
        calls.aliases.set("films", alias, "canonical")
    assert {each.alias for each in calls.aliases.list("films")} == wanted


def test_clusters_are_set_found_and_learnt(calls: Any) -> None:
    calls.create("i", 2, metric="L2", type="FLAT")
    rng = np.random.default_rng(11)
    calls.add_many("i", [f"v{number}" for number in range(400)], rng.normal(size=(400, 2)))
    calls.clusters.set("i", [[0, 0], [10, 0]])
    assert [each.id for each in calls.clusters.list("i")] == [0, 1]
    assert calls.clusters.nearest("i", [10, 3]) == NearestCluster(1, 3.0)
    assert calls.clusters.nearest("i", element="v1").id == 0
    told = calls.clusters.ttl("i", [0, 0])
    assert (told.id, told.base_ttl_s) == (0, 3600.0)
    assert told.ttl_s > 0
    calls.clusters.rebuild("i")
    assert sum(each.size for each in calls.clusters.list("i")) > 0
    assert {each.advice for each in calls.clusters.list("i")} == {None}
    assert calls.clusters.forget("i") == calls.clusters.forget("i", 0) == 0


def test_advice_on_a_cluster_is_read() -> None:
    told = {b"nature": b"volatile", b"ttl_factor": 0.5, b"value_factor": 2.0, b"confidence": 0.9}
    cluster = {b"id": 3, b"size": None, b"writes": 1, b"ttl": 9.0, b"threshold": 16.0}
    found = clusters.list_("i").parse([cluster | {b"advice": told | {b"expires": 60.5}}])
    assert found == [Cluster(3, None, 1, 9.0, 16.0, ClusterAdvice("volatile", 0.5, 2.0, 0.9, 60.5))]


def test_a_backup_is_made_beside_a_server_that_goes_on(tmp_path: Path, kind: Any) -> None:
    with running_server(tmp_path / "data") as server, calling(kind, port=server.port) as calls:
        films(calls)
        assert calls.backups.status().path == ""
        made = calls.backups.to(str(tmp_path / "backup"))
        assert (made.path, made.indexes) == (str(tmp_path / "backup"), 1)
        assert made.nbytes > 0
        assert made.files > 0
        told = calls.backups.status()
        assert (told.running, told.path, told.last_error) == (False, made.path, "")
        assert calls.backups.cancel() is False


def test_a_server_without_a_language_model_says_so(calls: Any) -> None:
    status = calls.llm.status()
    assert (status.enabled, status.state, status.queued, status.last_error) == (False, "off", 0, "")
    assert "month_cost" in status.more
    assert calls.llm.jobs(5) == calls.llm.jobs() == []
    for switch in (calls.llm.pause, calls.llm.resume):
        with pytest.raises(CommandError, match="off"):
            switch()


# -- round trips ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own() -> Any:
    """A blocking client of a server of its own, whose index is never emptied."""
    with running_server() as server, Client(port=server.port) as client:
        client.create("i", 4, metric="L2", type="FLAT")
        yield client


@given(
    st.binary(min_size=1, max_size=40),
    hnp.arrays(np.float32, 4, elements=st.floats(-(2.0**60), 2.0**60, width=32)),
    st.none()
    | st.dictionaries(
        st.text('aé{}"\\\n', max_size=4), st.none() | st.floats(-9, 9) | st.text("x€ ")
    ),
)
def test_what_is_stored_comes_back(own: Any, id_: bytes, vector: Any, attributes: Any) -> None:
    own.delete("i", id_)
    own.add_many("i", [id_], [vector], [attributes])
    found = own.get("i", id_, vector=True)
    assert found.id.encode("utf-8", "surrogateescape") == id_
    assert np.array_equal(found.vector, vector)
    assert found.attributes == attributes
    own.add("i", found.id, vector[::-1], attributes=attributes or {})
    assert np.array_equal(own.get("i", found.id, vector=True).vector, vector[::-1])


@given(hnp.arrays(np.float32, (6, 4), elements=st.floats(-100, 100, width=32)), st.integers(1, 6))
def test_searches_find_what_a_scan_in_numpy_finds(own: Any, rows: Any, count: int) -> None:
    own.create("s", 4, metric="L2", type="FLAT", if_new=True)
    own.add_many("s", list("abcdef"), rows)
    exact = np.sort(np.linalg.norm(rows.astype(np.float64) - rows[0], axis=1))
    found = own.search("s", rows[0], count=count)
    assert np.allclose(found.scores, exact[:count], rtol=1e-3, atol=1e-2)
    assert found.ids == own.search_many("s", rows[:1], count=count)[0].ids
