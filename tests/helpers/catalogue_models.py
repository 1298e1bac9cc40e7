"""Every model and every recipe once: what the tests need to know to build each. Checked for completeness.

A new model wants a `ModelCase`, a new recipe a `RecipeCase`; a case without one fails `test_catalogue_models.py`.
"""

from __future__ import annotations

import io
import json
import lzma
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CELLS = ("rnn", "lstm", "gru")  # swapping these works in every recipe that has a cell


@dataclass(frozen=True)
class ModelCase:
    """How to build a small model on a synthetic task.

    Args:
        pattern: the sequence pattern.
        data: name of the data module.
        task: the synthetic task.
        arguments: a small size, as JSON values.
        metrics: the metrics that an evaluation yields, at least.
        recurrent: whether the model has a cell.
        answer: a key that each answer has.
    """

    pattern: str
    data: str
    task: str
    arguments: dict[str, Any]
    metrics: tuple[str, ...]
    answer: str
    recurrent: bool = True


MODELS = {
    "VectorClassifier": ModelCase(
        pattern="one_to_one",
        data="VectorData",
        task="gaussians",
        arguments={"hidden_sizes": [8]},
        metrics=("loss", "accuracy", "macro_f1"),
        answer="label",
        recurrent=False,
    ),
    "SequenceClassifier": ModelCase(
        pattern="many_to_one",
        data="TextClassificationData",
        task="topic_chains",
        arguments={"hidden_size": 8, "words": {"size": 6}},
        metrics=("loss", "accuracy", "macro_f1"),
        answer="label",
    ),
    "SequenceTagger": ModelCase(
        pattern="many_to_many",
        data="TaggingData",
        task="hidden_markov",
        arguments={"hidden_size": 8, "words": {"size": 6}, "characters": {"size": 4, "output_size": 5}},
        metrics=("loss", "accuracy", "macro_f1"),
        answer="tags",
    ),
    "FrameLabeller": ModelCase(
        pattern="many_to_many",
        data="FrameData",
        task="adding",
        arguments={"hidden_size": 8},
        metrics=("loss", "mae", "rmse", "r2"),
        answer="frames",
    ),
    "Captioner": ModelCase(
        pattern="one_to_many",
        data="CaptionData",
        task="scenes",
        arguments={"hidden_size": 8, "words": {"size": 6}, "image": {"channels": [8, 8]}},
        metrics=("loss", "bleu1", "bleu4", "rouge_l", "cider_d", "exact_match"),
        answer="caption",
    ),
    "Translator": ModelCase(
        pattern="encoder_decoder",
        data="TranslationData",
        task="dates",
        arguments={"hidden_size": 8, "words": {"size": 6}, "search": {"beam_size": 2, "max_length": 8}},
        metrics=("loss", "bleu", "chrf", "exact_match"),
        answer="translation",
    ),
    "LanguageModel": ModelCase(
        pattern="next_step",
        data="LanguageData",
        task="markov_text",
        arguments={"hidden_size": 8, "words": {"size": 6}},
        metrics=("loss", "perplexity", "bits_per_character", "word_perplexity"),
        answer="loss",
    ),
}


@dataclass(frozen=True)
class RecipeCase:
    """What a recipe trains, and files of its kind.

    Args:
        model: name of the model.
        data: name of the data module.
        write: writes a few samples, as the files of `--data.path` look, into a folder; None for embedded tasks.
        arguments: what the head of the recipe says to add to `--data.path`.
    """

    model: str
    data: str
    write: Callable[[Path], None] | None = None
    arguments: list[str] = field(default_factory=list)


def write_conllu(folder: Path) -> None:
    """Universal Dependencies, with a comment and a multi-word token."""
    line = "{}\t{}\t_\t{}\t_\t_\t0\troot\t_\t_\n"
    sentence = "# text = ...\n1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_\n"
    sentence += line.format(1, "do", "AUX") + line.format(2, "n't", "PART") + line.format(3, "go", "VERB") + "\n"
    for split in ("train", "dev", "test"):
        (folder / f"xx-ud-{split}.conllu").write_text(sentence * 5, encoding="utf-8")


def write_conll(folder: Path) -> None:
    """CoNLL-2003: four columns, IOB1."""
    text = "-DOCSTART- -X- O O\n\n"
    text += "EU NNP I-NP I-ORG\nrejects VBZ I-VP O\n\nPeter NNP I-NP I-PER\nBlackburn NNP I-NP I-PER\n\n" * 3
    for name in ("eng.train", "eng.testa", "eng.testb"):
        (folder / name).write_text(text, encoding="utf-8")


def write_tsv(folder: Path) -> None:
    """SST-2: no header, bare quotation marks."""
    for split in ("train", "dev", "test"):
        (folder / f"sst2.{split}.tsv").write_text('a " fine film\t1\na dull one\t0\n' * 4, encoding="utf-8")


def write_jsonl_xz(folder: Path) -> None:
    """IMDB: JSON lines, xz, no validation split."""
    reviews = [{"id": place, "text": f"so good<br />film {place}", "label": place % 2} for place in range(20)]
    for split in ("train", "test"):
        with lzma.open(folder / f"{split}.jsonl.xz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(review) + "\n" for review in reviews)


def write_class_files(folder: Path) -> None:
    """Names: a file for each language."""
    for language, names in (("Czech", "Novák\nDvořák\n"), ("Irish", "O'Brien\nKelly\n")):
        (folder / f"{language}.txt").write_text(names * 10, encoding="utf-8")


def write_videos(folder: Path) -> None:
    """Gesture phases: a file for each video, with the one misspelt label."""
    header = "lhx,lhy,lhz,rhx,rhy,rhz,hx,hy,hz,sx,sy,sz,lwx,lwy,lwz,rwx,rwy,rwz,timestamp,phase\n"
    phases = ("Rest", "Preparation", "Preparação", "Stroke", "Hold", "Retraction")
    for number, name in enumerate(("a1", "a2", "a3", "b1", "b3")):
        rows = [[f"{number + frame / (column + 1):.3f}" for column in range(18)] for frame in range(12)]
        lines = [",".join([*row, str(place), phases[place // 2]]) + "\n" for place, row in enumerate(rows)]
        (folder / f"{name}_raw.csv").write_text(header + "".join(lines), encoding="utf-8")


def write_sensors(folder: Path) -> None:
    """Occupancy: quoted CSV whose rows have one field more than the header."""
    header = '"date","Temperature","Humidity","Light","CO2","HumidityRatio","Occupancy"\n'
    row = '"{0}","2015-02-04 17:{0:02d}:00",{1},27.2,{2},721.25,0.00479,{3}\n'
    rows = "".join(row.format(place, 20 + place / 10, 400 * (place % 2), place % 2) for place in range(20))
    for name in ("datatraining.txt", "datatest.txt", "datatest2.txt"):
        (folder / name).write_text(header + rows, encoding="utf-8")


def write_photos(folder: Path) -> None:
    """Flickr8k: captions, lists of the images of each split, and images in a zip."""
    from PIL import Image

    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        lines = []
        for place, split in enumerate(["train", "train", "train", "dev", "test"]):
            name = f"{place}.jpg"
            file = io.BytesIO()
            Image.new("RGB", (16, 16), (50 * place, 100, 100)).save(file, "JPEG")
            archive.writestr(name, file.getvalue())
            lines += [f"{name}#{number}\tA dog runs on grass number {number} .\n" for number in range(5)]
            with (folder / f"Flickr_8k.{split}Images.txt").open("a", encoding="utf-8") as listed:
                listed.write(f"{name}\n")
    (folder / "Flickr8k.token.txt").write_text("".join(lines), encoding="utf-8")


def write_parallel(folder: Path) -> None:
    """Multi30k: a file for each language and split, and a test split with its year."""
    texts = {"en": "A man's T-shirt.\nTwo dogs run.\n", "de": "Das T-Shirt eines Mannes.\nZwei Hunde laufen.\n"}
    for name in ("train", "val", "test_2016_flickr"):
        for language, text in texts.items():
            (folder / f"{name}.{language}").write_text(text * 6, encoding="utf-8")


# No weights are fetched: a small network from scratch in the place of a pretrained one.
SCRATCH = ["--model.image.name", "small_cnn", "--data.preprocessor", "null", "--data.image_size", "16"]


def write_play(folder: Path) -> None:
    """Tiny Shakespeare: one file without splits."""
    text = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\n"
    (folder / "input.txt").write_text(text * 60, encoding="utf-8")


def write_ptb(folder: Path) -> None:
    """Penn Treebank: a sentence a line, blanks at both ends, rare words as <unk>."""
    line = " no it was n't black monday \n the N stock specialist firms <unk> big board floor traders \n"
    for split in ("train", "valid", "test"):
        (folder / f"ptb.{split}.txt").write_text(line * 60, encoding="utf-8")


RECIPES = {
    "encoder_decoder/dates": RecipeCase("Translator", "TranslationData"),
    "encoder_decoder/multi30k_de_en": RecipeCase("Translator", "TranslationData", write_parallel),
    "encoder_decoder/multi30k_en_de": RecipeCase("Translator", "TranslationData", write_parallel),
    "many_to_many/adding": RecipeCase("FrameLabeller", "FrameData"),
    "many_to_many/conll2003_ner": RecipeCase("SequenceTagger", "TaggingData", write_conll),
    "many_to_many/ewt_upos": RecipeCase("SequenceTagger", "TaggingData", write_conllu),
    "many_to_many/gesture_phase": RecipeCase("FrameLabeller", "FrameData", write_videos, ["--data.test", "a1_raw.csv"]),
    "many_to_many/hidden_markov": RecipeCase("SequenceTagger", "TaggingData"),
    "many_to_many/occupancy": RecipeCase("FrameLabeller", "FrameData", write_sensors),
    "many_to_one/imdb": RecipeCase("SequenceClassifier", "TextClassificationData", write_jsonl_xz),
    "many_to_one/names": RecipeCase("SequenceClassifier", "TextClassificationData", write_class_files),
    "many_to_one/sst2": RecipeCase("SequenceClassifier", "TextClassificationData", write_tsv),
    "many_to_one/topic_chains": RecipeCase("SequenceClassifier", "TextClassificationData"),
    "next_step/markov_text": RecipeCase("LanguageModel", "LanguageData"),
    "next_step/ptb_words": RecipeCase("LanguageModel", "LanguageData", write_ptb),
    "next_step/tiny_shakespeare": RecipeCase("LanguageModel", "LanguageData", write_play),
    "one_to_many/flickr8k": RecipeCase("Captioner", "CaptionData", write_photos, SCRATCH),
    "one_to_many/flickr8k_hard": RecipeCase("Captioner", "CaptionData", write_photos, SCRATCH),
    "one_to_many/flickr8k_soft": RecipeCase("Captioner", "CaptionData", write_photos, SCRATCH),
    "one_to_many/scenes": RecipeCase("Captioner", "CaptionData"),
    "one_to_many/scenes_hard": RecipeCase("Captioner", "CaptionData"),
    "one_to_many/scenes_top_down": RecipeCase("Captioner", "CaptionData"),
    "one_to_one/gaussians": RecipeCase("VectorClassifier", "VectorData"),
    "one_to_one/occupancy": RecipeCase("VectorClassifier", "VectorData", write_sensors),
}
