from service.demo import bars
from service.reports.mix_comparison import MixComparison
from tests.service.gate_reports import make_report


def broken(*, assembled: tuple[float, float], finetuned: tuple[float, float] | None) -> list[str]:
    comparison = MixComparison.of(make_report(assembled=assembled, finetuned=finetuned))
    return [str(bar) for bar in bars.check(comparison) if not bar.held]


def test_a_good_mix_breaks_no_promise() -> None:
    assert broken(assembled=(32.0, 32.0), finetuned=(25.5, 25.5)) == []


def test_a_mix_that_gains_too_little_breaks_a_promise() -> None:
    (line,) = broken(assembled=(32.0, 32.0), finetuned=(30.0, 30.0))

    assert line == "mix after: share of the right expert's gain: 0.868, promised >= 0.950"


def test_a_mix_worse_than_the_merge_breaks_a_promise() -> None:
    lines = broken(assembled=(80.0, 80.0), finetuned=(25.5, 25.5))

    assert any("mix before" in line and "mean merge" in line for line in lines)


def test_a_mix_without_finetune_has_only_the_first_promises() -> None:
    assert broken(assembled=(32.0, 32.0), finetuned=None) == []
