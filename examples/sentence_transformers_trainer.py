"""A sentence-transformers trainer with one line more:

    python examples/sentence_transformers_trainer.py

Needs sentence-transformers, datasets and accelerate. A small BERT, made here from a configuration,
learns which of two sentences mean the same, twice from the same seed: with the library's loss, and
after `fastcl.patch` with fastcl's of the same name. The curve is the same.
"""

import tempfile
from collections.abc import Callable

import torch

import fastcl

try:
    import accelerate  # noqa: F401, the trainer asks for it late
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, set_seed
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: pip install sentence-transformers datasets accelerate") from None

ANIMALS = {"dog": "hound", "cat": "kitten", "horse": "mare", "pig": "hog", "bird": "crow"}
ACTIONS = {"runs": "races", "sleeps": "rests", "eats": "feeds", "plays": "frolics"}
PLACES = {"house": "home", "garden": "yard", "street": "road", "forest": "woods"}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def pairs() -> Dataset:
    found = [
        (f"a {animal} {action} in the {place}", f"the {other} {does} near my {there}")
        for animal, other in ANIMALS.items()
        for action, does in ACTIONS.items()
        for place, there in PLACES.items()
    ]
    anchors, positives = zip(*found, strict=True)
    return Dataset.from_dict({"anchor": list(anchors), "positive": list(positives)})


def small_model(folder: str, sentences: Dataset) -> SentenceTransformer:
    """Two layers over whole words, saved and loaded: nothing is downloaded."""
    words = {w for row in sentences for sentence in row.values() for w in sentence.split()}
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=16,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    transformer = Transformer(folder)
    return SentenceTransformer(modules=[transformer, Pooling(64)], device="cpu")


def train(make_loss: Callable[[SentenceTransformer], torch.nn.Module], epochs: int) -> list[float]:
    set_seed(0)
    sentences = pairs()
    with tempfile.TemporaryDirectory() as folder:
        model = small_model(folder, sentences)
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder, num_train_epochs=epochs, per_device_train_batch_size=16,
            use_cpu=True, learning_rate=2e-3, logging_steps=1, save_strategy="no",
            report_to="none", disable_tqdm=True, seed=0,
        )  # fmt: skip
        trainer = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=sentences, loss=make_loss(model)
        )
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main() -> None:
    before = train(losses.MultipleNegativesRankingLoss, epochs=6)
    fastcl.patch("sentence_transformers")
    after = train(losses.MultipleNegativesRankingLoss, epochs=6)
    print(f"first loss {after[0]:.4f}\nlast loss {after[-1]:.4f}, the library's {before[-1]:.4f}")
    torch.testing.assert_close(torch.tensor(after), torch.tensor(before), rtol=1e-3, atol=1e-3)
    assert after[-1] < 0.5 * after[0]


if __name__ == "__main__":
    main()
