"""Texts on which two tokenizers are compared."""

# What a tokenizer may treat in its own way: scripts, accents, signs, white space, capitals, more than fits. Vectors are
# compared for the first few only: a full-size text tower takes a while.
VARIED = (
    *("a photo of a cat.", "A PHOTO OF A Cat", "don't; it's 100 % O.K.!", "  two  spaces\tand a tab ", "price: €3.99"),
    *("naïve café, Straße", "кошка на крыше", "η γάτα", "猫の写真", "고양이 사진", "صورة قطة", "बिल्ली की तस्वीर"),
    *("猫！ 100％ ＡＢＣ １２３", "ｶﾞﾀｶﾅ", "ﬁsh and waﬄes", "a bell\x07 and\ufeff a mark", "it’s „low‟ ʼn ŉ"),
    *("תמונה של חתול", "รูปแมว", "mèo con", "a 🐈 and a 👩‍👩‍👧", "x² + y² = ½", "under_score-and/slash"),
    "one two three four five six seven eight nine ten " * 12,
)
WORDS = (
    *("cat", "Straße", "café", "naïve", "кошка", "γάτα", "猫", "고양이", "قطة", "बिल्ली", "חתול", "แมว", "mèo", "gato"),
    *("Łódź", "İzmir", "x²", "🐈", "don't", "A4-paper"),
)
PHRASES = (
    *("a photo of a {}", "{}", "  {}  on\tthe table ", "THE {} IS HERE!", "{} & {}?", "a {}, a {} (100 %)", "{}" * 40),
    *("the price of {}: €3.99", "“{}”", "one {} two {} three {} " * 9),
)
PROBES = (*VARIED, *(phrase.replace("{}", word) for word in WORDS for phrase in PHRASES))
