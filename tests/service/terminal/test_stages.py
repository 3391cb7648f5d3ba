"""Each stage prints a line with its seconds and result; a stage that fails prints none."""

import io

import pytest
from rich.console import Console

from service.terminal.stages import Stages


@pytest.fixture
def stages() -> Stages:
    return Stages(Console(file=io.StringIO(), width=80))


def printed(stages: Stages) -> str:
    assert isinstance(stages.console.file, io.StringIO)
    return stages.console.file.getvalue()


def test_a_line_for_each(stages: Stages) -> None:
    with stages.stage("Texts") as stage:
        stage.say("reading [1/2]")
        stage.result = "[12] documents"
    with stages.stage("Experts"):
        pass
    first, second = printed(stages).splitlines()
    assert first.split() == ["0.0", "s", "Texts", "[12]", "documents"]
    assert second.split() == ["0.0", "s", "Experts"]
    assert [stage.title for stage in stages.done] == ["Texts", "Experts"]
    assert stages.seconds >= sum(stage.seconds for stage in stages.done)


def test_a_stage_that_fails_has_no_line(stages: Stages) -> None:
    with pytest.raises(ZeroDivisionError), stages.stage("Texts"):
        _ = 1 / 0
    assert printed(stages) == ""
    assert stages.done == []
