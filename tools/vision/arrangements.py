"""How tower, projector and decoder are put together: stock classes of ``transformers``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import (
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from palette.shapes import Float, Tensor
from tools.vision.boards import BADGE, SIDE

PLACES, PIXELS = SIDE * SIDE, SIDE * BADGE
"""Tokens of a board, one a badge, and pixels of its side."""
GREY: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
"""Black is −1 and white 1."""


@dataclass(frozen=True)
class Arrangement:
    """A class of models that see, and what it is to be told of one."""

    model: type[PreTrainedModel]
    config: Callable[[PretrainedConfig, int], PretrainedConfig]
    """The whole model's configuration, of its decoder's and the picture's token."""
    processor: Callable[[PreTrainedTokenizerFast], Any]
    image: str
    """The token in whose places a picture stands."""
    marks: Sequence[str] = ()
    """Other tokens of its own."""
    around: tuple[str, str] = ("", "")
    """What stands before and after a picture's tokens."""
    axes: tuple[int, ...] = ()
    """Axes of the model's pixels before [picture 3 side side]."""

    def spelled(self, text: str) -> str:
        """A rendered text, with the picture's token as often as a board has badges."""
        before, after = self.around
        return text.replace(self.image, before + self.image * PLACES + after)

    def shown(self, pixels: Float[Tensor, "picture 3 side side"]) -> Tensor:
        """Pixels as the model takes them."""
        return pixels.reshape(*self.axes, *pixels.shape)


def _llava(text: PretrainedConfig, image: int) -> LlavaConfig:
    """A token is a patch of CLIP's tower, behind two layers."""
    tower = CLIPVisionConfig(
        hidden_size=96, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        image_size=PIXELS, patch_size=BADGE,
    )  # fmt: skip
    return LlavaConfig(  # type: ignore[call-arg]
        vision_config=tower,
        text_config=text,
        image_token_index=image,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        pad_token_id=text.pad_token_id,
        tie_word_embeddings=False,
    )


def _llava_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    images = CLIPImageProcessorPil(size={"height": PIXELS, "width": PIXELS}, do_center_crop=False, **GREY)
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=BADGE,
        vision_feature_select_strategy="default",
        image_token=LLAVA.image,
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )


def _idefics3(text: PretrainedConfig, image: int) -> Idefics3Config:
    """A token is four patches of SigLIP's tower side by side, behind one matrix."""
    tower = {
        "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 2,
        "image_size": PIXELS, "patch_size": BADGE // 2,
    }  # fmt: skip
    return Idefics3Config(
        vision_config=tower, text_config=text, image_token_id=image, scale_factor=2, tie_word_embeddings=False
    )


def _idefics3_processor(tokenizer: PreTrainedTokenizerFast) -> Idefics3Processor:
    side = {"longest_edge": PIXELS}
    images = Idefics3ImageProcessorPil(size=side, max_image_size=side, do_image_splitting=False, **GREY)
    return Idefics3Processor(images, tokenizer, image_seq_len=PLACES, chat_template=tokenizer.chat_template)


LLAVA = Arrangement(LlavaForConditionalGeneration, _llava, _llava_processor, "<|image|>")
_FAKE, _GLOBAL = "<fake_token_around_image>", "<global-img>"
IDEFICS3 = Arrangement(
    Idefics3ForConditionalGeneration,
    _idefics3,
    _idefics3_processor,
    "<image>",
    marks=(_FAKE, _GLOBAL, "<end_of_utterance>"),
    around=(_FAKE + _GLOBAL, _FAKE),
    axes=(1,),
)
