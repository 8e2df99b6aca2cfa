from model_service.front.engine_client.process import engine_environment

CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


def test_the_engine_keeps_preparations_of_few_shapes():
    environment = engine_environment({}, 1)
    assert [environment[name] for name in CACHES] == ["64", "64"]


def test_an_operator_may_have_it_keep_more():
    given = dict.fromkeys(CACHES, "1024")
    assert engine_environment(given, 1).items() >= given.items()


def test_the_engine_asks_for_large_pages_unless_somebody_chose():
    assert engine_environment({}, 1)["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    assert engine_environment({"GLIBC_TUNABLES": "x=1"}, 1)["GLIBC_TUNABLES"] == "x=1"
