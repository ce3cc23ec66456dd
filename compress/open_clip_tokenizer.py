"""open_clip's tokenizer, a Python class, as one of the `tokenizers` library."""

from functools import cache
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from compress.tokenizer_json import fixed

WORDS = r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# Straightened by ftfy's fix_text, which has no table of them.
QUOTES = "ʼ‘’‚‛“”„‟"


@cache
def one_by_one() -> bytes:
    """What ftfy's fix_text does to single characters (letters of the other width, ligatures, quotation marks, control
    characters), as the table of a Precompiled normalizer.

    What it does by looking at more than one (HTML entities, wrong encodings) is not here, nor is the final sigma that
    Python gives a Greek word in capitals.
    """
    from ftfy import chardata, fixes
    from sentencepiece import SentencePieceNormalizer, set_min_log_level
    from transformers.convert_slow_tokenizer import import_protobuf

    steps = (fixes.fix_latin_ligatures, fixes.fix_character_width, fixes.uncurl_quotes, fixes.remove_control_chars)
    table = []
    for sign in [*map(chr, (*chardata.LIGATURES, *chardata.WIDTH_MAP, *chardata.CONTROL_CHARS)), *QUOTES]:
        mended = sign
        for step in steps:
            mended = step(mended)
        if mended != sign != "\0":  # which ends a key of the table
            table.append((sign, mended))
    set_min_log_level(2)  # errors; it tells of every table it makes
    protobuf: Any = import_protobuf  # without types
    spec = SentencePieceNormalizer(norm_map=table).serialized_normalizer_spec()
    found: bytes = protobuf().NormalizerSpec.FromString(spec).precompiled_charsmap
    return found


def open_clip_tokenizer(theirs: Any, length: int) -> str:
    """The tokenizer.json that gives the ids of open_clip's SimpleTokenizer `theirs`, cut and padded to `length`."""
    first, last = (theirs.decoder[number] for number in (theirs.sot_token_id, theirs.eot_token_id))
    merges = [(pair[0], pair[1]) for pair in theirs.bpe_ranks if len(pair) == 2]
    made = Tokenizer(models.BPE(vocab=theirs.encoder, merges=merges, end_of_word_suffix="</w>"))
    made.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(one_by_one()),
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
            normalizers.Lowercase(),
        ]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([first, last])
    made.post_processor = processors.RobertaProcessing(
        sep=(last, theirs.eot_token_id), cls=(first, theirs.sot_token_id), add_prefix_space=False, trim_offsets=False
    )
    return fixed(made.to_str(), length, 0, theirs.decoder[0])
