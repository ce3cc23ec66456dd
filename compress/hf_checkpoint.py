"""What the checkpoints of transformers share: how they are loaded, and what their processors say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from compress.checkpoints import Vectors, need_file
from compress.tokenizer_json import fixed
from runtimes import RecipeError
from sdk.manifest import ImageSpec
from sdk.resize import Frame
from sdk.tokenizer_scan import scan_tokenizer

# As Pillow numbers its filters.
RESIZES = {3: "pil-bicubic", 2: "pil-bilinear"}


class Processors:
    """The checkpoint's own tokenizer and image processor; `image` resizes by Pillow, as these models were trained,
    `default` by what transformers takes unasked, which is torchvision and rounds otherwise. Raises RecipeError if one
    is missing, or cannot be loaded without running code that comes with it."""

    def __init__(self, folder: Path) -> None:
        import transformers

        auto: Any = transformers  # the two below have no types
        need_file(folder, "tokenizer", "tokenizer.json", "vocab.json", "spiece.model")
        need_file(folder, "preprocessing", "preprocessor_config.json", "processor_config.json")
        if not (folder / "spiece.model").is_file():  # which is read in its place
            _scan(folder / "tokenizer.json")
        try:
            local = {"trust_remote_code": False, "local_files_only": True}
            self.tokenizer: Any = auto.AutoTokenizer.from_pretrained(folder, **local)
            self.image: Any = auto.AutoImageProcessor.from_pretrained(folder, backend="pil", **local)
            self.default: Any = auto.AutoImageProcessor.from_pretrained(folder, **local)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # each library has its own, and panics of `tokenizers` are no Exception
            raise RecipeError(
                f"the processors of {folder} cannot be loaded ({_why(error)}); save them again with this "
                "version of transformers"
            ) from error

    def tokenizer_json(self, folder: Path, length: int, made: Tokenizer | None = None) -> str:
        """The tokenizer, or the one `made` of it, as a tokenizer.json that pads and cuts to `length` tokens.

        Raises RecipeError for one that is not of the `tokenizers` library, does not pad, or pads on the left.
        """
        inner = getattr(self.tokenizer, "backend_tokenizer", None) if made is None else made
        if inner is None:
            raise RecipeError(
                f"the tokenizer of {folder} ({type(self.tokenizer).__name__}) has no tokenizer.json; "
                "convert it to one, and save it there"
            )
        if self.tokenizer.padding_side != "right":
            raise RecipeError(f"the tokenizer of {folder} pads on the left; wanted one that pads at the end")
        if self.tokenizer.pad_token is None:
            raise RecipeError(
                f"the tokenizer of {folder} names no token to pad with; add the one that the model was trained with, "
                "pad_token in tokenizer_config.json"
            )
        return fixed(inner.to_str(), length, self.tokenizer.pad_token_id, self.tokenizer.pad_token)

    def pixels(self, folder: Path, size: int) -> ImageSpec:
        """How frames become the model's, of `size` pixels. Raises RecipeError for what the SDK cannot do alike."""
        image = self.image
        wanted, crop = dict(image.size), dict(image.crop_size or {}) if image.do_center_crop else {}
        edge = wanted.get("shortest_edge")
        square = {"height": size, "width": size}
        known = (edge == size and crop == square) or (wanted == square and crop in ({}, square))
        if not (image.do_resize and known):
            raise RecipeError(
                f"{folder} resizes frames to {wanted} and crops {crop or 'nothing'}; wanted its model's "
                f"{size} pixels, by the shortest edge and a centre crop, or stretched"
            )
        if image.resample not in RESIZES:
            raise RecipeError(
                f"{folder} resamples with Pillow's filter {image.resample}; wanted one of "
                + ", ".join(f"{number} ({name})" for number, name in RESIZES.items())
            )
        if not image.do_rescale or abs(image.rescale_factor * 255 - 1) > 1e-6:
            raise RecipeError(f"{folder} does not scale pixels by 1/255; wanted values in 0..1")
        mean, std = (image.image_mean, image.image_std) if image.do_normalize else ((0.0,) * 3, (1.0,) * 3)
        cut = "center-after" if edge else "none"
        return ImageSpec(size, RESIZES[int(image.resample)], cut, tuple(mean), tuple(std))


class TransformersOwn:
    """See `compress.checkpoints.Encoder`."""

    def __init__(self, model: Any, processors: Processors, length: int, image: Any) -> None:
        """`image`: one of the image processors."""
        self._model, self._tokenizer, self._length, self._image = model, processors.tokenizer, length, image

    def ids(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Token ids, int64 (N, L)."""
        return np.asarray(self._tokens(texts)["input_ids"].numpy(), np.int64)

    @torch.no_grad()
    def images(self, frames: Sequence[Frame]) -> Vectors:
        """Unit vectors, float32 (N, D)."""
        pixels = self._image(images=list(frames), return_tensors="pt")["pixel_values"]
        seen = self._model.get_image_features(pixel_values=pixels).pooler_output
        return np.asarray(F.normalize(seen, dim=-1).numpy())

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 (M, D)."""
        read = self._model.get_text_features(**self._tokens(texts)).pooler_output
        return np.asarray(F.normalize(read, dim=-1).numpy())

    @torch.no_grad()
    def logits(self, images: Vectors, texts: Vectors) -> Vectors:
        """As the model's own `forward` has them, (N, M)."""
        bias = getattr(self._model, "logit_bias", 0.0)  # SigLIP's
        found = torch.tensor(images) @ torch.tensor(texts).T * self._model.logit_scale.exp() + bias
        return np.asarray(found.numpy())

    def _tokens(self, texts: Sequence[str]) -> Mapping[str, Tensor]:
        coded: Mapping[str, Tensor] = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self._length, return_tensors="pt"
        )
        # SigLIP was trained without a mask, and its processor gives none.
        names: Sequence[str] = self._tokenizer.model_input_names
        return {name: coded[name] for name in ("input_ids", "attention_mask") if name in names}


def load_whole(kind: Any, folder: Path) -> Any:
    """The model of the transformers class `kind` in `folder`, float32, in eval mode.

    Raises RecipeError for weights that are missing, of other shapes, or a pickle of more than tensors.
    """
    from transformers import utils

    logging: Any = utils.logging  # without types
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, info = kind.from_pretrained(
            folder,
            dtype=torch.float32,
            weights_only=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below
            attn_implementation="sdpa",  # a configuration may name a kernel of the hub instead, which is code
        )
    except Exception as error:  # of pickle, safetensors, torch and transformers
        raise RecipeError(
            f"the weights of {folder} cannot be loaded ({_why(error)}); wanted safetensors, or a pickle "
            "of tensors alone (torch.load with weights_only)"
        ) from error
    finally:
        logging.set_verbosity(level)
    other, missing = sorted(info["mismatched_keys"]), sorted(info["missing_keys"])
    if other:
        name, stored, wanted = other[0]
        raise RecipeError(
            f"{folder} has {len(other)} weights of other shapes than its config.json says, such as {name}: "
            f"{tuple(stored)}, and not {tuple(wanted)}; copy both from one checkpoint"
        )
    if missing:
        raise RecipeError(
            f"{folder} lacks {len(missing)} weights of a {kind.__name__}, such as {missing[0]}; wanted "
            "both towers of a dual encoder"
        )
    return model.eval()


def _scan(path: Path) -> None:
    """Raises RecipeError for a tokenizer.json that must not reach the library which reads it."""
    try:
        if path.is_file():
            scan_tokenizer(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} is not opened: {error}; take the tokenizer from where the model was made") from error


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
