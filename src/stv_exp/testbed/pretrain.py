"""`python -m stv_exp +experiment=pretrain_testbed` trains the testbed from scratch; started again, it resumes."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, IterableDataset
from transformers import Idefics2ForConditionalGeneration, Idefics2Processor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from stv_exp.config import Config
from stv_exp.identity import signatures
from stv_exp.pretrain_config import PretrainConfig
from stv_exp.progress import Meter
from stv_exp.stages.checkpoint import readable
from stv_exp.stages.progress import StageProgress
from stv_exp.stages.trainer import Interruption
from stv_exp.testbed.curriculum import Batch, Curriculum, Sight, vocabulary
from stv_exp.testbed.galleries import attributes
from stv_exp.testbed.model import build_model, build_processor, save

log = logging.getLogger(__name__)


def pretrain(config: Config) -> Path:
    """Train, or resume the training of this recipe, and write a folder that `AutoModelForImageTextToText` loads."""
    recipe = config.pretrain
    folder = Path(recipe.folder)
    processor = build_processor(vocabulary())
    model = build_model(processor, recipe.layers, recipe.hidden, config.seed)
    module = Pretraining(model, processor, recipe, config.seed)
    last = folder / "checkpoints" / signatures(config).run / "last.ckpt"
    checkpoints = ModelCheckpoint(last.parent, save_last=True, every_n_train_steps=recipe.checkpoint_every)
    meter = Meter("pretraining", recipe.steps, bar=config.trainer.progress_bar)
    trainer = Trainer(
        accelerator=config.trainer.accelerator,
        devices=1,
        max_steps=recipe.steps,
        gradient_clip_val=1.0,
        logger=CSVLogger(folder, name="log", version=""),
        log_every_n_steps=20,
        callbacks=[Interruption(), checkpoints, StageProgress(meter)],
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[LightningEnvironment()],
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Checkpoint directory .* not empty")  # it is to be resumed
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
        trainer.fit(module, ckpt_path=last if readable(last, "training") else None, weights_only=True)
    save(model, processor, folder / "weights")
    log.info("The testbed is in %s; use it with model.name=%s", folder / "weights", folder / "weights")
    return folder / "weights"


class Pretraining(LightningModule):
    """Next-token loss on answers (and the newline after them)."""

    def __init__(
        self, model: Idefics2ForConditionalGeneration, processor: Idefics2Processor, recipe: PretrainConfig, seed: int
    ) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.newline = processor.tokenizer.eos_token_id
        width = model.model.vision_model.post_layernorm.normalized_shape[0]
        heads = (torch.nn.Linear(width, values) for *_, values in attributes())
        self.heads = torch.nn.ModuleList(heads).requires_grad_(False)
        self._make_curriculum = lambda: Curriculum(processor, recipe, seed)

    def train_dataloader(self) -> DataLoader[Sight | Batch]:
        remaining = range(self.global_step, self.recipe.steps)
        return DataLoader(_Batches(self._make_curriculum(), remaining), batch_size=None)

    def training_step(self, batch: Sight | Batch, batch_idx: int) -> Tensor:
        return self._see(batch) if isinstance(batch, Sight) else self._speak(batch)

    def _see(self, batch: Sight) -> Tensor:
        """Each attribute of a picture by a random linear head of its own on the vision tower's mean.

        A tower that learns through the language model needs ten times as long for what is told apart by form.
        """
        seen = self.model.model.vision_model(batch.pixels).last_hidden_state.mean(1)
        logits = [head(seen) for head in self.heads]
        told = list(zip(logits, batch.values.T, strict=True))
        loss = torch.stack([cross_entropy(guess, value, reduction="sum") for guess, value in told]).sum() / len(seen)
        correct = sum(int((guess.argmax(-1) == value).sum()) for guess, value in told)
        self.log_dict({"loss": loss, "accuracy": correct / int((batch.values >= 0).sum())}, batch_size=1)
        return loss

    def _speak(self, batch: Batch) -> Tensor:
        hidden = self._hidden(batch)
        answers, newlines = batch.targets >= 0, batch.targets == self.newline
        answers &= ~newlines
        logits = self.model.lm_head(hidden[answers])
        loss = cross_entropy(logits, batch.targets[answers])
        # The newline after an answer is learned at once: an eighth of them is plenty.
        some = newlines[: max(1, len(newlines) // 8)]
        ending = cross_entropy(self.model.lm_head(hidden[: len(some)][some]), batch.targets[: len(some)][some])
        correct = (logits.argmax(-1) == batch.targets[answers]).float().mean()
        self.log_dict({"loss": loss, "accuracy": correct}, batch_size=1)
        return loss + 0.1 * ending

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1.0, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
        )
        schedule = LambdaLR(optimizer, lambda step: learning_rate(step, recipe))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _hidden(self, batch: Batch) -> Tensor:
        """Last hidden states `[B, T, hidden]`; each distinct picture passes the vision tower once."""
        features = torch.stack(self.model.model.get_image_features(batch.pixels[:, None]).pooler_output)
        shown = BaseModelOutputWithPooling(pooler_output=features[batch.pictures.flatten()].flatten(0, 1))
        ids = batch.input_ids
        return self.model.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_encoder_outputs={"image": shown},
            use_cache=False,
        ).last_hidden_state


class _Batches(IterableDataset[Sight | Batch]):
    def __init__(self, curriculum: Curriculum, steps: range) -> None:
        self.curriculum = curriculum
        self.steps = steps

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Sight | Batch]:
        return map(self.curriculum.batch, self.steps)


def learning_rate(step: int, recipe: PretrainConfig, warmup: int = 100) -> float:
    """A cosine to 2% for the tower, constant while perceiving, then again a cosine; each part warms up."""
    if step < recipe.tower_steps:
        return recipe.tower_lr * _cosine(step, recipe.tower_steps, warmup)
    step -= recipe.tower_steps
    if step < recipe.perception_steps:
        return recipe.perception_lr * min(1.0, (step + 1) / warmup)
    spent = recipe.tower_steps + recipe.perception_steps
    return recipe.lr * _cosine(step - recipe.perception_steps, recipe.steps - spent, warmup)


def _cosine(step: int, steps: int, warmup: int) -> float:
    progress = min(1.0, step / max(1, steps))
    return min(1.0, (step + 1) / warmup) * max(0.02, 0.5 * (1 + math.cos(math.pi * progress)))
