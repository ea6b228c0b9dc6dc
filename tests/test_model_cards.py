"""The model cards load with the Hub's own reader, and have what the Hub shows."""

from pathlib import Path

import pytest

huggingface_hub = pytest.importorskip("huggingface_hub")

CARDS = sorted((Path(__file__).parents[1] / "model_cards").glob("*.md"))


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_front_matter(path):
    card = huggingface_hub.ModelCard.load(path)
    data = card.data.to_dict()
    assert data["library_name"] == "iart_plugin"
    assert data["pipeline_tag"] == "video-to-video"
    assert "video-super-resolution" in data["tags"]
    assert data["license"] != "other" or (data["license_name"] and data["license_link"])
    assert data["datasets"] and data["metrics"]
    headings = [line[3:] for line in card.text.splitlines() if line.startswith("## ")]
    assert headings == [
        *("How to make it", "How to use it"),
        *("What it was trained on, and for", "Figures", "Licence"),
    ]
