"""The candidate of a mix version is the checkpoint of its last step."""

from assembler.tables import FINAL_STATES, RETRIED_STATES, MixState, MixVersion


def test_the_last_step_gives_the_candidate() -> None:
    version = MixVersion()
    assert (version.trained_digest, version.candidate_digest) == (None, None)
    version.assembled_digest = "assembled"
    assert (version.trained_digest, version.candidate_digest) == ("assembled", "assembled")
    version.finetuned_digest = "finetuned"
    assert (version.trained_digest, version.candidate_digest) == ("finetuned", "finetuned")
    version.compressed_digest = "compressed"
    assert (version.trained_digest, version.candidate_digest) == ("finetuned", "compressed")


def test_only_four_states_are_final() -> None:
    running = set(MixState) - set(FINAL_STATES)
    assert {MixState.QUEUED, MixState.GATING, MixState.PUBLISHING} < running
    assert len(FINAL_STATES) == 4


def test_every_final_state_but_success_can_be_retried() -> None:
    assert set(FINAL_STATES) - set(RETRIED_STATES) == {MixState.SUCCEEDED}
