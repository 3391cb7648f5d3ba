"""Control characters do not reach the terminal."""

from service.terminal.printable import printable


def test_control_characters_are_written_as_escapes() -> None:
    assert printable("a\x1b[2Jb\x07\x9b") == "a\\x1b[2Jb\\x07\\x9b"


def test_other_text_stays_as_it_is() -> None:
    text = "Äpfel\tund\n[/nope] :smile: \U0001f600"
    assert printable(text) == text
