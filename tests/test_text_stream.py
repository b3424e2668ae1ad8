"""Text of tokens that come one by one (what it shows is tested through ``generate``, too)."""

from cs336lm.generation.text_stream import TextStream


class Bytes:
    def decode_bytes(self, ids):
        return bytes(ids)


def test_what_is_shown_is_whole_and_sure_to_stay():
    text = TextStream(Bytes(), ["end"])
    assert [text.push(byte) for byte in "aé€en".encode()] == ["a", "", "é", "", "", "€", "", ""]
    assert text.push(ord("e")) == "en"  # no stop after all, but this may begin one
    assert not text.ended
    assert [text.push(ord(c)) for c in "nd"] == ["", ""]
    assert text.ended
    assert text.push(ord("x")) == text.end() == ""


def test_at_the_end_what_was_held_back_is_shown():
    text = TextStream(Bytes(), ["end"])
    assert [text.push(byte) for byte in b"en\xe2"] == ["", "", ""]
    assert text.end() == "en�"
    assert text.ended
    assert text.end() == text.push(0x61) == ""
