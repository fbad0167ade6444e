"""The schema of every setting. YAML in `conf/` holds values; code below `cli` sees these dataclasses.

Field names are the command line's: `policy.steps=100` sets `Config.policy.steps`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass(unsafe_hash=True)
class HeadsConfig:
    """`pattern` is the path of the output projections, as in `transformer.h.{layer}.attn.c_proj`; empty: found."""

    pattern: str = ""


@dataclass(unsafe_hash=True)  # a loaded model is kept by its settings
class ModelConfig:
    """A Hugging Face model. `name` is a hub id, a folder, or one of `testbed`, `tiny` and `smollm2` (no download).

    `dtype` is float32, bfloat16, float16 or auto: bfloat16 where the device computes it fast, else float32. `chat`
    writes prompts with the model's chat template; `chat_arguments` are a dict of the template's own, such as
    `{enable_thinking: false}`. `device_map` (such as `auto`) spreads weights over devices; `quantization` needs the
    extra `large`. `trust_remote_code` runs code that comes with the weights.
    """

    name: str = MISSING
    revision: str | None = None
    dtype: str = "float32"
    attention: str = "sdpa"
    chat: bool = False
    chat_arguments: Any = field(default=None, hash=False)  # a type would close it to new keys
    device_map: str | None = None
    quantization: str = "none"
    trust_remote_code: bool = False
    heads: HeadsConfig = field(default_factory=HeadsConfig)


@dataclass
class TemplateConfig:
    """How a prompt is written; `<image>` stands for an example's image, the answer follows `query` directly."""

    prefix: str = ""
    demonstration: str = "<image>{question} {answer}\n"
    query: str = "<image>{question}"
    answer: str = " {answer}"


@dataclass
class EpisodeConfig:
    """N-way episodes over labelled pictures: `ways` classes with `shots` pictures each before the query.

    `options` lists the class names with letters (`A.x B.y`), else the class is to be named. `annotations` is a folder
    of published episode files (MTV's) to use instead of drawing episodes. `disjoint_classes` keeps eval classes new.
    """

    ways: int = 2
    shots: int = 1
    options: bool = True
    disjoint_classes: bool = False
    annotations: str = ""
    noun: str = "object"


@dataclass
class FieldsConfig:
    """Columns of a `datasets` dataset; `labels` are names for integer answers where its features have none."""

    image: str = "image"
    question: str = ""
    answer: str = "label"
    labels: list[str] = field(default_factory=list)


@dataclass
class DatasetConfig:
    """A benchmark. `loader` is a module with `load(DatasetConfig) -> Task`.

    `root` is the folder with its files as they were downloaded (or a hub id, with `dataset=hub`). `skip_broken` leaves
    out examples whose picture is missing or corrupt and says how many. `partition` is DTD's split number.
    `validation` examples are held out of the support: no scan, bank or search sees them, settings are chosen on them.
    """

    name: str = MISSING
    loader: str = MISSING
    task: str = MISSING
    root: str = ""
    support_split: str = "train"
    eval_split: str = "test"
    metric: str = "exact_match"
    skip_broken: bool = False
    partition: int = 1
    streaming: bool = False
    episode: EpisodeConfig = field(default_factory=EpisodeConfig)
    fields: FieldsConfig = field(default_factory=FieldsConfig)
    support: int = 200
    validation: int = 0
    eval: int = 100
    family: str = "plain"
    explicit_question: bool = False
    label_noise: float = 0.0
    max_new_tokens: int = 20
    template: TemplateConfig = field(default_factory=TemplateConfig)


@dataclass
class DemonstrationsConfig:
    """How demonstrations are chosen: random, balanced, nearest_question, nearest_image or facility_location."""

    choice: str = "random"


@dataclass
class MethodConfig:
    """Three choices: `where` to insert, `what` the candidates are, `how` one candidate a location is chosen.

    Each is a name (`--help` lists them) or the dotted path of a class. `site` is head, attention, mlp or residual; `k`
    locations of it, `m` candidates a location. `shots` demonstrations stand in the prompt when it is evaluated.
    """

    name: str = MISSING
    where: str = MISSING
    what: str = MISSING
    how: str = MISSING
    site: str = "head"
    shots: int = 0
    k: int = 0
    m: int = 1
    sensitivity: str = "l2"


@dataclass
class ScanConfig:
    """T query-context `pairs` of `shots` demonstrations each (T=100, s=4 in the paper)."""

    pairs: int = 100
    shots: int = 4


@dataclass
class BankConfig:
    """`identity` adds the candidate "leave this location alone" to every location."""

    identity: bool = False


@dataclass
class PolicyConfig:
    """The search: `steps` steps of `queries` support queries with `samples` candidates each.

    `budget` replaces `steps`: as many as that many token-forwards of candidates pay for (a token through all layers is
    1, a backward pass counts 2; 0: no budget). `reward` is the mean log-likelihood of the answer's tokens, all or the
    first. `baseline` is standardised or leave_one_out. `threshold`: no mask holds a location that is less probable. A
    softmax over candidates goes from `temperature` to `final_temperature`; without `straight_through` its forward is
    soft too. `cache_bytes` of prefixes are kept (0: what fits in half of the free memory).
    """

    steps: int = 600
    queries: int = 1
    samples: int = 32
    budget: int = 0
    lr: float = 0.1
    reward: str = "all"
    baseline: str = "standardised"
    threshold: float = 0.0
    selection_draws: int = 10
    selection_items: int = 50
    temperature: float = 1.0
    final_temperature: float = 0.2
    straight_through: bool = True
    cache_bytes: int = 0


@dataclass
class InsertionConfig:
    """How a vector v enters an activation x. `when` is every_step or prompt; `mode` is replace, add or blend.

    With `weight` w: (1 - w) x + w v in a blend, x + w v in an addition. `norm_preserving` keeps the length of x.
    """

    when: str = "every_step"
    mode: str = "replace"
    weight: float = 1.0
    norm_preserving: bool = False


@dataclass
class TrainerConfig:
    """How stages run; none of it changes a result, so none of it is part of a run's identity.

    Progress bars are drawn on a terminal only. `threads` is torch's number of CPU threads (0: its own choice).
    """

    accelerator: str = "cpu"
    batch_size: int = 32
    progress_bar: bool = True
    threads: int = 0


@dataclass
class TrackerConfig:
    """`name` is wandb, tensorboard, csv or none; `mode` is W&B's offline or online."""

    name: str = "wandb"
    mode: str = "offline"
    project: str = "stv_exp"
    images: int = 16


@dataclass
class PretrainConfig:
    """The recipe of the testbed's weights."""

    folder: str = "outputs/testbed"
    layers: int = 4
    hidden: int = 128
    images: int = 40_000
    perception_steps: int = 1_000
    steps: int = 4_500
    sequences: int = 32
    examples: int = 9
    distinct_images: int = 96
    explicit: float = 0.2
    noisy_sequences: float = 0.25
    max_noise: float = 0.3
    perception_lr: float = 1.5e-3
    lr: float = 1e-3
    weight_decay: float = 0.05
    checkpoint_every: int = 250


@dataclass
class Config:
    """Everything a job needs. `job` is `run` (a method on a task), `pretrain` (the testbed) or `check_data`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    demonstrations: DemonstrationsConfig = field(default_factory=DemonstrationsConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    scan: ScanConfig = field(default_factory=ScanConfig)
    bank: BankConfig = field(default_factory=BankConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    insertion: InsertionConfig = field(default_factory=InsertionConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    job: str = "run"
    seed: int = 0
    outputs: str = "outputs"
    study: str = "runs"


def setting(config: Config, key: str) -> Any:
    """The value of a dotted key such as `policy.steps`."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
