"""SigLIP's tokenizer, a Python class of transformers around SentencePiece, as one of the `tokenizers` library."""

import string
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

# Written out: no device opens a tokenizer with any other regular expression.
SIGNS = "[" + "".join(rf"\{sign}" if sign in r"\[]^-" else sign for sign in string.punctuation) + "]"


def siglip_tokenizer(theirs: Any) -> Tokenizer:
    """What gives the ids of transformers' SiglipTokenizer `theirs`: lower case, no signs, one space between words, and
    the end token after them (its `canonicalize_text` and `build_inputs_with_special_tokens`), normalised between as the
    SentencePiece model says.
    """
    from transformers.convert_slow_tokenizer import import_protobuf

    protobuf: Any = import_protobuf  # without types
    model = protobuf().ModelProto.FromString(Path(theirs.vocab_file).read_bytes())
    charsmap = model.normalizer_spec.precompiled_charsmap
    pieces = theirs.sp_model
    vocab = [(pieces.id_to_piece(at), pieces.get_score(at)) for at in range(pieces.get_piece_size())]
    made = Tokenizer(models.Unigram(vocab, unk_id=pieces.unk_id(), byte_fallback=False))
    lower = [normalizers.Lowercase()] if theirs.do_lower_case else []
    made.normalizer = normalizers.Sequence(
        [
            *lower,
            normalizers.Replace(Regex(SIGNS), ""),
            *([normalizers.Precompiled(charsmap)] if charsmap else []),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    end = str(theirs.eos_token)
    made.post_processor = processors.TemplateProcessing(single=["$A", end], special_tokens=[(end, theirs.eos_token_id)])
    return made
