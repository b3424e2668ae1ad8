"""Hard texts for the tokenizer's tests: scripts, code, emoji, spaces, controls, no UTF-8."""

import sys
import unicodedata

from hypothesis import strategies as st

SPECIAL = "<|endoftext|>"

MULTILINGUAL = """\
The quick brown fox can't jump; they've said it'll rain, I'm sure we'd know. 'Twas 1984, not 2 001.
Zażółć gęślą jaźń. Straße, naïve café, coöperate. ÀÉÎÕÜ ﬁ ﬂ ŉ ǆ.
Съешь же ещё этих мягких французских булок, да выпей чаю. Її ґанок.
Ο καλύτερος φίλος· ἐν ἀρχῇ ἦν ὁ λόγος. İstanbul'da ılık ıhlamur.
敏捷的棕色狐狸跳过了懒狗。「你好，世界！」春眠不覺曉，處處聞啼鳥。
すばやい茶色の狐はのろまな犬を飛び越える。カタカナとひらがな、漢字。ﾊﾝｶｸ。
다람쥐 헌 쳇바퀴에 타고파. 안녕하세요 세계!
सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता। १२३४
نص حكيم له سر قاطع وذو شأن عظيم ٠١٢٣٤٥ (مكتوب على ثوب أخضر).
דג סקרן שט בים מאוכזב ולפתע מצא חברה. สวัสดีชาวโลก ทดสอบ ๑๒๓
¼ ½ ² ³ Ⅷ ⅻ ① ㊿ 𝟙𝟚𝟛 𝓗𝓮𝓵𝓵𝓸 𐍈𐌹𐌻 𠜎𠜱𠝹 𓀀𓁐
"""

CODE = """\
def f(x: int=0, *args, **kw) -> dict[str, "A"]:\r
\treturn {"a": x**2 if x != 3 else ~x, 'b': [i for i in range(10_000)]}  # !?!\n\n\n
fn main() -> Result<(), Box<dyn Error>> { println!("{:>08.3}", 0x1F_u8 as f64); Ok(()) }
    <div class="a-b_c" id='x'>&nbsp;&lt;</div>\t\t\t<!-- --> https://example.org/?q=1&r=%20#frag
SELECT * FROM t WHERE a>=1 AND b<>'it''s';     -- 100%\n\n   \n  \n\tx += 1;;;;\\\\ /* ==== */
2024-01-02T03:04:05Z ERROR [worker-17] 127.0.0.1:8080 "GET /index.html" 200 1532 0.003s
"""

EMOJI = "👍🏽👩‍👩‍👧‍👦🏳️‍🌈 🇩🇪🇯🇵 ☃️❤️‍🔥 🤷‍♀️e\u0301 ‼️ ©®™ 1️⃣2️⃣ \U0001f9ff😀😀😀 a😀b 😀 😀"

# Every space and every control character, alone, doubled, and between letters, digits and marks.
_SPACES = [chr(code) for code in range(0x11000) if chr(code).isspace()]
_CONTROLS = [
    chr(code) for code in range(0x10000) if unicodedata.category(chr(code)) in ("Cc", "Cf")
]
SPACES = "".join(
    f"{c}a{c}{c}b {c}c{c} d{c}1 {c}{c} 2{c}!{c}?\n{c}\n" for c in sorted({*_SPACES, *_CONTROLS})
)


def _settled(code: int) -> bool:
    """No surrogate, and nothing that one version of Unicode assigns and another does not yet."""
    unassigned = unicodedata.category(chr(code)) in ("Cs", "Cn")
    return not unassigned or 0x40000 <= code < 0xE0000


# Characters from all over every plane, and the planes' edges.
PLANES = "".join(
    chr(code) + (" x 1"[index % 4])
    for index, code in enumerate([*range(0x20, 0x110000, 0x3B7), 0xFFFD, 0x10000, 0x10FFFD])
    if _settled(code)
)

OVERLAPS = "aaaa aaaaa aa a aaaaaaaaaaaaaaaa abababab ababa bababa aaabaaab\n" * 3

# Not one of them is UTF-8: alone, cut short, too long, surrogates, beyond the last plane.
NO_UTF8 = (
    b"\xff\xfe\x80\x80 a\xc3 b\xe2\x82c \xf0\x9f\x98d\xc0\xaf \xe0\x80\x80\xed\xa0\x80'\xed\xbf\xbf"
    b" \xf4\x90\x80\x80\xf8\x88\x80\x80\x80 \xe4\xbd\xa0\xe5 1\xff2\xff \xff\xff s'\xff's \xc2"
)

VALID = {
    "multilingual": MULTILINGUAL,
    "code": CODE,
    "emoji": EMOJI,
    "spaces": SPACES,
    "planes": PLANES,
    "overlaps": OVERLAPS,
    "empty": "",
    "one byte": "a",
    "one-byte words": "a b c 1 2 ! \n a b a a b",
    "special tokens": f"{SPECIAL}a{SPECIAL}{SPECIAL} b{SPECIAL}\n{SPECIAL} {SPECIAL[:-1]} c|>",
}
ANY: dict[str, bytes] = {name: text.encode() for name, text in VALID.items()} | {
    "no UTF-8": NO_UTF8,
    "every byte": bytes(range(256)) * 2,
    "all of them": " ".join(VALID.values()).encode() + NO_UTF8,
}

# Characters that every table of Unicode in use here agrees on: assigned in this Python's version,
# which is older than the others'.
_assigned = st.characters(max_codepoint=sys.maxunicode, exclude_categories=("Cs", "Cn"))
_words = [
    "a",
    "ab",
    "the",
    "1",
    "12",
    "!",
    "—",
    "'",
    "'s",
    "'ll",
    "é",
    "你",
    "你好",
    "の",
    "😀",
    "<|end",
    "|>",
]
_spaces = [" ", "  ", "\n", "\r\n", "\t ", "\u00a0", "\u2028"]
_fragments = st.sampled_from([*_words, *_spaces, " the", SPECIAL])
text = st.lists(_fragments | st.text(_assigned, max_size=4), max_size=30).map("".join)
any_bytes = st.lists(
    text.map(str.encode) | st.binary(max_size=5) | st.sampled_from([b"\xff", b"\xe4\xbd"]),
    max_size=8,
).map(b"".join)
