"""What a request asks, in the extra arguments that go to the worker."""

from engine.vllm_plugin.attribution.asked import KEY, Asked


def test_it_is_read_as_it_was_written() -> None:
    asked = Asked(disabled=(0, 2), routing=True, blocks=True)
    assert Asked.of(asked.replace_in({"other": 1})) == asked
    assert asked.replace_in({"other": 1}) == {"other": 1, KEY: asked.replace_in(None)[KEY]}  # type: ignore[index]  # it asks something


def test_a_list_of_experts_is_read_as_well() -> None:
    """Messages between processes have no tuples."""
    assert Asked.of({KEY: {"disabled": [1]}}) == Asked(disabled=(1,))


def test_who_asks_nothing_leaves_nothing() -> None:
    assert Asked.of(None) == Asked.of({}) == Asked()
    assert Asked().replace_in(None) is None


def test_what_a_client_wrote_is_dropped() -> None:
    forged = {KEY: {"disabled": [77]}, "other": 1}
    assert Asked().replace_in(forged) == {"other": 1}
    assert Asked.of(Asked(disabled=(1,)).replace_in(forged)) == Asked(disabled=(1,))
