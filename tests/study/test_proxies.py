"""A tiny CLIP with random weights, saved and loaded as any model of the hub is."""

import json
from pathlib import Path

import numpy as np
import pytest

from alberti.errors import DataError
from alberti.study.proxies import BENDS_PX, check_bends, notices, open_judge, score_proxies, verdict


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    from alberti.diffusion.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("clip")
    tokenizer = train_tokenizer(["a realistic photo of a street"], 600, 16)
    text = {"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    text |= {"num_hidden_layers": 1, "max_position_embeddings": 16, "eos_token_id": tokenizer.eos_token_id}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = CLIPConfig(text_config=text, vision_config=vision | {"image_size": 32, "patch_size": 8}, projection_dim=8)
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPProcessor(CLIPImageProcessor(**size), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    from alberti.diffusion.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("llava")
    tokenizer = train_tokenizer(["yes no Yes No is it a realistic picture"], 700, 256)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=32, patch_size=8, **small),
        text_config=LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **small),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    template = (
        "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>"
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    LlavaProcessor(
        CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


class Ruler:
    """Notices every bend: likes pictures whose columns are alike from top to bottom."""

    def score(self, image: np.ndarray, caption: str) -> float:
        return -float(np.abs(np.diff(image.astype(float), axis=0)).mean())


class Coin:
    """Sees nothing: scores by the picture's bytes."""

    def score(self, image: np.ndarray, caption: str) -> float:
        return float(np.random.default_rng(int(image.astype(np.int64).sum())).random())


@pytest.fixture
def posts(tmp_path: Path) -> Path:
    """Pictures of upright lines."""
    from alberti.images import write_image

    (tmp_path / "posts").mkdir()
    for index in range(24):
        image = np.full((96, 96, 3), 230, np.uint8)
        image[:, 10 + index : 90 : 12] = 20
        write_image(tmp_path / "posts" / f"{index:02d}.png", image)
    return tmp_path / "posts"


def test_the_check_tells_who_notices_from_who_does_not(posts: Path) -> None:
    seeing, blind = check_bends(Ruler(), posts, ""), check_bends(Coin(), posts, "")
    assert [row["rms_px"] for row in seeing] == list(BENDS_PX)
    assert [row["share"] for row in seeing] == [1.0] * 4
    assert notices(seeing) == 0.5
    assert verdict(seeing).startswith("Notices bent pictures from 0.5 px")
    assert notices(blind) is None
    assert "say nothing about perspective" in verdict(blind)
    middling = [{**row, "low": 0.4 if row["rms_px"] < 2 else 0.7} for row in seeing]
    assert notices(middling) == 2.0
    assert "only from 2 px" in verdict(middling)


def test_a_model_of_transformers_scores_arms_and_bends(clip: Path, arms: dict[str, Path], tmp_path: Path) -> None:
    two = {"base": arms["base"], "constrained": arms["constrained"]}
    lines = score_proxies(two, arms["renders"], [str(clip)], tmp_path / "proxies.json", prompt="a street", device="cpu")
    assert any("constrained over base" in line for line in lines)
    table = json.loads((tmp_path / "proxies.json").read_text())
    model = table["models"][0]
    assert table["kind"] == "automatic proxies, not people"
    assert model["verdict"] in lines[0]
    assert [row["n"] for row in (*model["comparisons"], *model["bends"])] == [8] * 5
    assert (tmp_path / "proxies.csv").read_text().count("\n") == 6


def test_scores_are_the_model_s_own_logits(clip: Path) -> None:
    import torch
    from PIL import Image
    from transformers import CLIPModel, CLIPProcessor

    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    processor = CLIPProcessor.from_pretrained(clip)
    inputs = processor(text=["a street"], images=[Image.fromarray(image)], return_tensors="pt")
    with torch.inference_mode():
        wanted = float(CLIPModel.from_pretrained(clip).eval()(**inputs).logits_per_image)
    assert open_judge(str(clip), device="cpu").score(image, "a street") == pytest.approx(wanted, rel=1e-4)


def test_a_model_that_answers_questions_scores_by_the_odds_of_yes(llava: Path) -> None:
    import torch

    from alberti.study.proxies import QuestionModel

    judge = open_judge(str(llava), device="cpu")
    assert isinstance(judge, QuestionModel)
    first, second = (np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8) for seed in (0, 1))
    before = judge.score(first, "a street")
    assert before != judge.score(second, "a street")
    assert before == judge.score(first, "a street")
    yes = torch.tensor(judge._yes)
    with torch.no_grad():
        judge._model.lm_head.weight[yes] *= 0
    assert judge.score(first, "a street") != before


def test_a_folder_that_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a model that transformers loads"):
        open_judge(str(tmp_path), device="cpu")
