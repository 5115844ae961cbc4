"""Retrieval with false negatives left out, by the plain Trainer of transformers:

    python examples/trainer_compute_loss.py

Needs transformers and accelerate. Questions and answers are made here, with words of their topic;
topics come more than once in a batch, and any answer of its topic fits a question. The loss is an
override of `compute_loss`; its margin keeps such answers from being pushed away.
"""

import tempfile

import torch
from torch.utils.data import Dataset

from fastcl.losses import RetrievalLoss

try:
    import accelerate  # noqa: F401
    from transformers import BertConfig, BertModel, Trainer, TrainingArguments, set_seed
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: pip install accelerate transformers") from None

TOPICS, WORDS = 96, 6  # of questions and, others, of answers: topic t has 6 t to 6 t + 5 of each


class Questions(Dataset):
    """A question and its answer, four words of one topic each."""

    def __init__(self, pairs: int) -> None:
        self.topics = torch.randint(TOPICS, (pairs,))
        first = WORDS * self.topics[:, None], WORDS * (TOPICS + self.topics[:, None])
        self.texts = [x + torch.randint(WORDS, (pairs, 4)) for x in first]

    def __len__(self) -> int:
        return len(self.texts[0])

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {name: x[i] for name, x in zip(("question", "answer"), self.texts, strict=True)}


class Encoder(BertModel):
    """A small BERT whose output is the mean over the words, `[n, 64]`."""

    def forward(self, question: torch.Tensor, answer: torch.Tensor) -> list[torch.Tensor]:
        return [super(Encoder, self).forward(x).last_hidden_state.mean(1)
                for x in (question, answer)]  # fmt: skip


class ContrastiveTrainer(Trainer):
    criterion = RetrievalLoss(0.05, margin=0.1)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        embeddings = model(**inputs)
        loss = self.criterion(*embeddings)
        return (loss, {"embeddings": embeddings}) if return_outputs else loss


def found(model: Encoder, held_out: Questions) -> float:
    """How many questions have an answer of their topic nearest."""
    with torch.no_grad():
        question, answer = (torch.nn.functional.normalize(x, dim=1)
                            for x in model.eval()(*held_out.texts))  # fmt: skip
    nearest = (question @ answer.T).argmax(1)
    return (held_out.topics == held_out.topics[nearest]).double().mean().item()


def main() -> None:
    set_seed(0)
    config = BertConfig(
        vocab_size=2 * TOPICS * WORDS, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=8,
    )  # fmt: skip
    model, held_out = Encoder(config), Questions(256)
    before = found(model, held_out)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, use_cpu=True, num_train_epochs=3, learning_rate=2e-3,
            per_device_train_batch_size=64, logging_steps=1, report_to="none", seed=0,
            save_strategy="no", disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        trainer = ContrastiveTrainer(model, arguments, train_dataset=Questions(1024))
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    after = found(model, held_out)
    print(f"first loss {losses[0]:.4f}\nlast loss {losses[-1]:.4f}")
    print(f"questions that find their topic: {before:.3f}, then {after:.3f}")
    assert after > 0.8 > before


if __name__ == "__main__":
    main()
