"""Goldens of CLIP's tokenizer, into quant/clip/testdata: merges.txt.gz and clip_tokens.json.

Run with bpe_simple_vocab_16e6.txt.gz as the argument: it is in the wheel of open_clip_torch 3.3.0.
"""
import gzip
import hashlib
import json
import sys
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers
from transformers import CLIPTokenizer

from paths import ROOT

TESTDATA = ROOT / "quant/clip/testdata"
SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
CONTEXT = 77
SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

TEXTS = """a photo of a cat
a photo of the small coffee mug.
itap of a snow-leopard
A BAD PHOTO OF THE WELSH SPRINGER SPANIEL
rock 'n' roll's y'all'd've 'S 'T 'RE 'Ve 'M 'LL 'D
don't DON'T don’t dont' 'tis ''s '' ' 're're 'r 'l 'v ''ll x'l x'r x'v
'strong 'model 'd'd s's !'s ?'re 1's 's1 é's 'é
hello_world snake_case __init__ _ __ a_b_c
a-b--c—d–e ... …… !!! ?!?! @user #hashtag $5.00 50% ^&*() [x] {y} \\ | ~ `
1234567890 3.14 1e10 0x1F 1st 2nd 12:30 2026-11-27 v2.0 4x4 iPhone15
½ ¾ ² ³ ¹ ① ⑳ Ⅷ ⅷ ٣ ४ 〇 一二三 ൵ ௰ 𝟘𝟙 🄀
naïve façade jalapeño Ångström Å Å A\u030a smörgåsbord ﬁ ﬂ ﬃ ſ ŉ ǆ ǅ Ǆ
e\u0301 e\u0301\u0323 e\u0323\u0301 ệ e\u0302\u0323 q\u0307\u0323 q\u0323\u0307 s\u0323\u0307 ṩ
\u0301 \u0301a \u0344 \u0340\u0341\u0343 \u0f73 \u0f75 \u0f81 \u1100\u0301\u1161 o\u0338\u0304\u0301
İstanbul I\u0307 ı i\u0307 IĞDIR ığdır İİİ J\u030c Ǉ ẞ ß STRASSE
ΟΔΥΣΣΕΥΣ Σ ΣΑΣ ς ά ά ᾳ ᾼ ῼ Ὀδυσσεύς \u03b1\u0345\u0301 ; Ω Ω K Å
ПРИВЕТ мир Й И\u0306 ё е\u0308 Ѐ ѝ Ӂ
日本語の猫 東京タワー が か\u3099 ぱ は\u309a ヴ ｶﾞ ﾊﾟ 「犬」 。、 ・ー
汉字 漢字 豈 更 車 丽 𠔜 舘 﨑 﨎 𠀋 𪜀
한국어 한\u1100\u1161\u11a8 \u1112\u1161\u11ab\u1100\u1173\u11af 가\u11a8 각\u11a8 \u1100 \u1161 \u11a8 \u1100\u1161\u1161 ㄱㅏ
العربية قطة مَدْرَسَة \u0627\u0653 آ \u0648\u0654 لا ﷺ ﻻ ١٢٣
עברית שׁ ש\u05c1 ש\u05bc\u05c1 שּׁ יִ חָתוּל
हिन्दी बिल्ली क़ क\u093c ऩ न\u093c हि\u0902 ०१२ ড় ਸ਼ \u09c7\u09be ো ொ \u0b92\u0bd7 \u0dd9\u0dcf\u0dca
ภาษาไทย แมว กำ ລາວ ខ្មែរ မြန်မာ \u1025\u102e བོད་ཡིག ཀྵ \u0f40\u0fb5 ქართული ᲥᲐᲠᲗᲣᲚᲘ Հայերեն և
𝒞𝒶𝓉 𝕕𝕠𝕘 ｆｕｌｌ ＷＩＤＴＨ Ⓐⓑ ꮳ Ꭓ 𐐀𐐨 𞤀𞤢 \U0001d15e \U0001d157\U0001d165 \U000110ab \U00011131\U00011127
😀 😃😄 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ❤️ ☺ ⌚️ 1️⃣ #️⃣ 🧑🏿‍🚀 cat😀dog 😀cat
zero\u200bwidth zero\u200cwidth zero\u200djoiner word\u2060joiner \ufeffbom soft\u00adhyphen \u202eRTL\u202c \u180e
a\u0000b \u0001 \u001b[0m \u007f a\u001cb a\u001db a\u001eb a\u001fb
 lead   and   trail  
\ta\u000bb\u000cc\u000dd\u0085e\u00a0f\u1680g\u2000h\u2001i\u2028j\u2029k\u202fl\u205fm\u3000n
\u3000
 \t \u000d\u000b
&amp; &lt;b&gt; &#39; &quot;cat&quot; &nbsp; <br/> <a href="x">y</a> http://example.com/a?b=c&d=e user@example.com
C++ C# .NET node.js F# a+b=c 2*3 <3 :-) :D ^_^ o_O ¯\\_(ツ)_/¯
<|startoftext|> <|endoftext|> <|endoftext|>dog
<|StartOfText|>a<|ENDOFTEXT|> <|endoftext| >
<start_of_text> <end_of_text> [SOS] [EOS] <s> </s> <unk> <pad>
</w> a</w> </w>b w>< </
Ġ Ċ ġ Ń Ā ā ĠĠ dogĠcat
\ufffd \ufffe \uffff \U0010ffff \ue000 \U000e0001
“curly” ‘quotes’ «guillemets» „low“ ‚x‘ ′prime″ ´acute` it’s
© ® ™ ° ± × ÷ µ μ € £ ¥ § ¶ † ‡ • № ℃ Å ‰ ª º
caf\u00c3\u00a9 mojibake Ã¼ â€™
pneumonoultramicroscopicsilicovolcanoconiosis antidisestablishmentarianism
Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
hahahahahahahahahahahahahahahahahaha lololololol zzzzzzz
asdfghjklqwertyuiopzxcvbnm xjqzkvbwpf
CamelCaseWord XMLHttpRequest eBay iOS macOS
golden retriever
traffic light
remote control
t-shirt
jack-o'-lantern
Sauvignon blanc
crème brûlée
macaroni & cheese
7-Eleven
three-toed sloth, ai, Bradypus tridactylus
person wearing a red hat & sunglasses (outdoors)
Boeing 737-800
2012 Ferrari FF Coupe
Ñandú Œuvre Æsir Ðuro Þór Łódź Çelik Řeřicha Șț Ơ Ư
Tiếng Việt con mèo nhỏ xíu
Tie\u0302\u0301ng Vie\u0323\u0302t
Ελληνικά γάτα
кошка собака Київ їжак
猫犬鳥
고양이 강아지
قط كلب
बिल्ली कुत्ता""".split("\n")
TEXTS += [
    "", " ", "\n", "a\nb\r\nc", "x" * 500, "a" * 3000, "ab" * 700, "日本語" * 200, "👩‍🚀" * 60, "1" * 100, "!" * 300, "e\u0301" * 200,
    "dog " * 74, "dog " * 75, "dog " * 76, "dog " * 75 + "!", "a photo of " + "very " * 90 + "big dog", "'" * 20, "'s" * 40, "é's" * 40,
    "o" + "\u0323\u0302\u0301" * 20, "ΑΣ" * 30, " " * 5000 + "cat" + "\u3000" * 5000 + "dog", "\u1112\u1161\u11ab" * 100,
]


def spelt():
    """The 256 bytes in GPT-2's order, as its characters."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    return [chr(b) for b in shown] + [chr(256 + i) for i in range(len(hidden))]


def runs(of):
    """First, last of each run of code points."""
    out = []
    for c in of:
        if out and out[-1] + 1 == c:
            out[-1] = c
        else:
            out += [c, c]
    return out


packed = open(sys.argv[1], "rb").read()
assert hashlib.sha256(packed).hexdigest() == SHA256
merges = gzip.decompress(packed).decode().split("\n")[1:48895]
with open(TESTDATA / "merges.txt.gz", "wb") as f, gzip.GzipFile("", "wb", 9, f, mtime=0) as z:
    z.write(("#version: 0.2\n" + "\n".join(merges) + "\n").encode())

pieces = spelt()
pieces += [p + "</w>" for p in pieces] + [m.replace(" ", "") for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
assert len(set(pieces)) == 49408
vocab = {p: i for i, p in enumerate(pieces)}
plain = CLIPTokenizer(vocab=vocab, merges=[tuple(m.split(" ")) for m in merges])
# The same, but names of special tokens are text.
escaped = CLIPTokenizer(vocab=vocab, merges=[tuple(m.split(" ")) for m in merges], split_special_tokens=True)
escaped.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Split(Regex(SPLIT), behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])

given = [json.loads(line.split("\t")[0]) for line in open(TESTDATA / "clip_given.tsv") if line[0] == '"']
texts = []
for text in dict.fromkeys(given + TEXTS):
    a, b = (t(text, truncation=True, max_length=CONTEXT)["input_ids"] for t in (plain, escaped))
    texts.append({"text": text, "ids": b} | ({"special": a} if a != b else {}))

points = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
nfc, lower = normalizers.NFC().normalize_str, normalizers.Lowercase().normalize_str
hidden = {k: normalizers.Replace(Regex(k), "").normalize_str for k in (r"\p{L}", r"\p{N}", r"\s")}
golden = {
    "texts": texts,
    # Of each code point in NFC, then of each in NFD in NFC, NUL between; without U+11938, see BPE.
    "nfc_sha256": hashlib.sha256("\0".join(
        nfc(f(chr(c))) for f in (str, lambda s: unicodedata.normalize("NFD", s)) for c in points if c != 0x11938).encode()).hexdigest(),
    "lower": {chr(c): lower(chr(c)) for c in points if lower(chr(c)) != chr(c)},
    "letters": runs(c for c in points if not hidden[r"\p{L}"](chr(c))),
    "numbers": runs(c for c in points if not hidden[r"\p{N}"](chr(c))),
    "blanks": runs(c for c in points if not hidden[r"\s"](chr(c))),
}
with open(TESTDATA / "clip_tokens.json", "w") as f:
    f.write("{\n\"texts\": [\n" + ",\n".join(json.dumps(t) for t in golden.pop("texts")) + "\n],\n")
    f.write(",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in golden.items()) + "\n}\n")
