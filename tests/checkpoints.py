"""Small checkpoints with random weights, saved by the libraries that checkpoints come from; the tokenizers are real."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from compress.drawn_clip import clip_vocabulary

CARD = "---\nlicense: mit\n---\n# A checkpoint\n"
SIZE = 32


def clip_tokenizer() -> Any:
    """transformers' own."""
    from transformers import CLIPTokenizer

    vocab, merges = clip_vocabulary()
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def save_clip(folder: Path, card: str = CARD, **text: Any) -> Path:
    """A CLIP of transformers: 32 pixels, two layers each; `text`: more of its text_config. Returns `folder`."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    torch.manual_seed(1)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        vision_config={**shape, "image_size": SIZE, "patch_size": 8},
        text_config={**shape, "vocab_size": 49408, "eos_token_id": 49407, **text},
        projection_dim=48,
        logit_scale_init_value=2.0,
    )
    model = CLIPModel(config)
    spread(model)
    model.save_pretrained(folder)
    square = {"height": SIZE, "width": SIZE}
    images = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=square)
    CLIPProcessor(images, clip_tokenizer()).save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


@torch.no_grad()
def spread(model: torch.nn.Module, gain: float = 1.0) -> None:
    """Draw larger weights than fresh ones: a network that says the same of everything proves nothing."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.copy_(torch.randn(parameter.shape) * gain * (parameter.numel() / len(parameter)) ** -0.5)
        elif parameter.numel() > 1:  # biases and normalisations
            parameter.add_(torch.randn(parameter.shape) * 0.1)


def save_siglip(folder: Path, card: str = CARD, projection: int = 64, two: bool = False) -> Path:
    """A SigLIP of transformers: 32 pixels, two layers each, its SentencePiece trained on a few phrases. `two`: with the
    tokenizer and the resize of SigLIP 2."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipProcessor

    torch.manual_seed(2)
    layers = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokenizer = siglip2_tokenizer() if two else siglip_tokenizer(folder)
    config = SiglipConfig(
        vision_config={**layers, "image_size": SIZE, "patch_size": 8},
        text_config={
            **layers,
            "vocab_size": tokenizer.vocab_size,
            "max_position_embeddings": 16,
            "projection_size": projection,
        },
    )
    model = SiglipModel(config)
    spread(model)
    with torch.no_grad():
        model.logit_scale.fill_(4.77)  # as google's: 117.8
        model.logit_bias.fill_(-12.9)
    model.save_pretrained(folder)
    images = SiglipImageProcessor(size={"height": SIZE, "width": SIZE}, resample=2 if two else 3)
    (images if two else SiglipProcessor(images, tokenizer)).save_pretrained(folder)
    if two:
        tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


WORDS = (
    *("photo", "apple", "pear", "purple", "submarine", "seven", "wooden", "chairs", "zebra", "crossing", "cat", "the"),
    *("кошка", "на", "крыше", "猫", "の", "写真", "고양이", "صورة", "café", "naïve", "straße", "price", "of"),
)
LINES = [f"a {one} of the {two}" for one in WORDS for two in WORDS]


def siglip_tokenizer(folder: Path) -> Any:
    """transformers' own, of a new SentencePiece model in `folder`."""
    import sentencepiece
    from transformers import SiglipTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_prefix=str(folder / "spiece"),
        vocab_size=400,
        hard_vocab_limit=False,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    names = ["input_ids"]  # no mask: as google's, it was trained to see padding
    return SiglipTokenizer(str(folder / "spiece.model"), model_max_length=16, model_input_names=names)


def siglip2_tokenizer() -> Any:
    """Byte-pair encoding in Gemma's manner, new; as transformers loads what SigLIP 2 brings."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    letters = [f"<0x{byte:02X}>" for byte in range(256)]
    inner.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=500, special_tokens=[*special, *letters]))
    inner.post_processor = processors.TemplateProcessing(single=["$A", "<eos>"], special_tokens=[("<eos>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=16, padding_side="right", model_input_names=["input_ids"], **names
    )


def save_open_clip(
    folder: Path,
    card: str = CARD,
    vision: Mapping[str, Any] | None = None,
    text: Mapping[str, Any] | None = None,
    *,
    safe: bool = True,
    dim: int = 48,
) -> Path:
    """An open_clip of 32 pixels, two layers each, saved as the library saves it. `vision`, `text`: more of its
    configuration; `dim`: of the joint space; `safe`: as safetensors, else as a pickle. Returns `folder`."""
    from open_clip import CLIP
    from open_clip.push_to_hf_hub import save_config_for_hf
    from open_clip.transform import PreprocessCfg
    from safetensors.torch import save_file

    torch.manual_seed(3)
    own = {"image_size": SIZE, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    words = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    config = {"embed_dim": dim, "vision_cfg": {**own, **(vision or {})}, "text_cfg": {**words, **(text or {})}}
    model = CLIP(**config)
    if not vision:  # a network of timm says enough of each image as it is drawn
        spread(model)
    preprocess = PreprocessCfg(size=SIZE)
    model.visual.image_mean, model.visual.image_std = preprocess.mean, preprocess.std
    folder.mkdir(parents=True, exist_ok=True)
    if safe:
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    else:
        torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    save_config_for_hf(model, folder / "open_clip_config.json", config)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder
