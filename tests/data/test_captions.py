from pathlib import Path

import numpy as np
import pytest
import torch

from alberti.data.captions import BlipCaptioner, caption_samples
from alberti.data.config import CaptionConfig
from alberti.data.manifest import Sample
from alberti.errors import CheckpointError, DataError

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "street",
    "with",
    "two",
    "cars",
    "and",
    "trees",
    "under",
    "the",
    "sky",
    "photograph",
    "of",
]


def sample(name: str, caption: str | None = None) -> Sample:
    return Sample(id=name, image=f"{name}.png", width=32, height=32, caption=caption)


def read_image(row: Sample) -> np.ndarray:
    return np.random.default_rng(ord(row.id[0])).integers(0, 256, (40, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real BLIP captioning model of a few thousand random weights, saved as transformers saves one."""
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    folder = tmp_path_factory.mktemp("blip")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**size, "vocab_size": len(WORDS), "encoder_hidden_size": 16, "max_position_embeddings": 32}
    ids = {"bos_token_id": 2, "pad_token_id": 0, "eos_token_id": 3, "sep_token_id": 3}
    config = BlipConfig(
        text_config={**text, **ids}, vision_config={**size, "image_size": 32, "patch_size": 16}, projection_dim=16
    )
    torch.manual_seed(1)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def test_captions_of_the_data_set_come_first_then_the_template() -> None:
    rows = [sample("a", "a bridge"), sample("b")]
    config = CaptionConfig(template="a street")
    assert [row.caption for row in caption_samples(rows, read_image, config)] == ["a bridge", "a street"]
    replaced = caption_samples(rows, read_image, config.model_copy(update={"keep": False}))
    assert [row.caption for row in replaced] == ["a street", "a street"]


def test_nothing_left_to_caption_with_is_an_error() -> None:
    with pytest.raises(DataError, match="sample 'b'"):
        list(caption_samples([sample("a", "x"), sample("b")], read_image, CaptionConfig(template=None)))


def test_blip_describes_only_what_has_no_caption_in_order_and_any_batch(blip: Path) -> None:
    rows = [sample("a"), sample("b", "a bridge"), sample("c"), sample("d"), sample("e")]
    read: list[str] = []

    def reading(row: Sample) -> np.ndarray:
        read.append(row.id)
        return read_image(row)

    results = []
    for batch_size in (2, 5):
        config = CaptionConfig(model=str(blip), batch_size=batch_size, max_new_tokens=6)
        results.append([row.caption for row in caption_samples(rows, reading, config)])
    assert results[0] == results[1]
    assert results[0][1] == "a bridge"
    assert read == ["a", "c", "d", "e"] * 2
    assert all(set(caption.split()) <= set(WORDS) for caption in results[0][2:])


def test_blip_prompt_begins_every_caption(blip: Path) -> None:
    describe = BlipCaptioner(CaptionConfig(model=str(blip), prompt="a photograph of", max_new_tokens=4))
    captions = describe([read_image(sample("a")), read_image(sample("b"))])
    assert all(caption.startswith("a photograph of") for caption in captions)


def test_blip_is_not_loaded_when_every_sample_has_a_caption() -> None:
    config = CaptionConfig(model="nowhere/at-all")
    assert [row.caption for row in caption_samples([sample("a", "x")], read_image, config)] == ["x"]


def test_missing_or_unsafe_blip_weights(blip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        BlipCaptioner(CaptionConfig(model=str(tmp_path / "empty")))
    for path in blip.iterdir():
        if path.name != "model.safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        BlipCaptioner(CaptionConfig(model=str(tmp_path)))
