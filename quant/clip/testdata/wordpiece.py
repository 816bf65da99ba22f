"""Prints wordpiece.tsv: texts (JSON) and the ids that huggingface/tokenizers gives them.

Run: pip install tokenizers==0.23.3; python3 testdata/wordpiece.py > testdata/wordpiece.tsv
The vocabulary stands in the first line, as a JSON string of pieces joined by newlines.
"""
import json
import random
import string
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
pieces += list(string.ascii_lowercase + string.digits + string.punctuation)
pieces += ["##" + c for c in string.ascii_lowercase + string.digits]
pieces += "photo of the coffee mug mugs key ##board laptop cafe naive jalapeno ##ing ##s ##ers un ##aff ##able a##b".split()
pieces += list("αβωйжאا") + ["##" + c for c in "αωйж"] + list("水火한\u8c48") + ["\u1112", "##\u1161", "##\u11ab", "か", "##か", "ß", "æ", "ı", "ø", "##ø"]
pieces = list(dict.fromkeys(pieces))
vocab = {p: i for i, p in enumerate(pieces)}
tok = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
tok.normalizer = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True)
tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

texts = [
    "", " ", "a photo of a mug.", "A Photo of the COFFEE  MUG!", "keyboard keyboards key-board", "unaffable", "unaffordable",
    "café CAFÉ cafe\u0301", "naïve jalapeño", "Ångström Å \u212b", "Łódź Øresund Æther straße ẞ", "İstanbul ıI", "Đà Nẵng", "Kelvin \u212a",
    "ΑΒΓ ΆΩ ΌΣΟΣ", "ЖЙй Ёж", "אָ", "한국 \ud55c", "水火 水mug火", "が か\u3099", "\uf900 \u8c48", "\uff21\uff42", "ﬁne ﬃ", "①②", "x≠y x\u0338", "a\u037eb \u1fef",
    "mu\u200bg mu\u00adg mu\ufeffg", "a\u0000b a\ufffdb a\u0007b a\u0085b", "a\tb\nc\rd a\u000bb a\u000cb", "a\u00a0b a\u2003b a\u3000b a\u2028b a\u202fb",
    "“quoted” — dash… it's $5 50% #1 a_b a^b `x` ~ | <b> «g»", "¿qué? ¡no!", "3.14 1,000 x2", "[UNK] [CLS]", "##s # ##",
    "x" * 100, "x" * 101, "é" * 100, "é" * 101, "mug" * 33 + "s", "🙂 a🙂b", "a\u0301\u0302\u0303", "\u0301", "é\u200de", "नमस्ते", "ไทย", "a\U0001d400b", "\U00020000", "\U0002f800",
    "\u0133\u01c4", "\u1e9b\u0323", "\ue000a", "\u0378a", "a\u180eb", "a\u061cb", "\u00aa\u00ba", "a\u30fbb a\u00b7b", "\u0149",
]
rng = random.Random(1)
alphabet = "abcxyzABZ019 .,-'_" + "éÉüßøÆñ" + "\u0301\u200d水жΩ\u00a0"
texts += ["".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 24))) for _ in range(60)]
print(json.dumps("\n".join(pieces)))
for t in texts:
    print(json.dumps(t) + "\t" + " ".join(map(str, tok.encode(t, add_special_tokens=False).ids)))
