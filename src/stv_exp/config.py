"""The schema of every setting. YAML in `conf/` holds values; code below `cli` sees these dataclasses.

Field names are the command line's: `policy.steps=100` sets `Config.policy.steps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

from omegaconf import MISSING

from stv_exp.metrics import METRICS
from stv_exp.policy_config import PolicyConfig
from stv_exp.pretrain_config import PretrainConfig
from stv_exp.ranges import FOLDER, NAME, PATH, Count, Many, OneOf, Positive, Range, Share
from stv_exp.tracker_config import TrackerConfig
from stv_exp.train_config import TrainConfig

CHOICES = OneOf("random", "balanced", "nearest_question", "nearest_image", "facility_location")


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

    name: Annotated[str, PATH] = MISSING
    revision: str | None = None
    dtype: Annotated[str, OneOf("auto", "float32", "bfloat16", "float16")] = "float32"
    attention: Annotated[str, OneOf("sdpa", "eager", "flash_attention_2")] = "sdpa"
    chat: bool = False
    chat_arguments: Any = field(default=None, hash=False)  # a type would close it to new keys
    device_map: str | None = None
    quantization: Annotated[str, OneOf("none", "int8", "int4")] = "none"
    trust_remote_code: bool = False
    heads: HeadsConfig = field(default_factory=HeadsConfig)


@dataclass
class TemplateConfig:
    r"""How a prompt is written: `<image>` is an example's image, `\n` a line's end; the answer follows `query`."""

    prefix: str = ""
    demonstration: str = "<image>{question} {answer}\n"
    query: str = "<image>{question}"
    answer: str = " {answer}"

    def __post_init__(self) -> None:
        for name, text in vars(self).items():
            setattr(self, name, text.replace("\\n", "\n"))


@dataclass
class EpisodeConfig:
    """N-way episodes over labelled pictures: `ways` classes with `shots` pictures each before the query.

    `options` lists the class names with letters (`A.x B.y`), else the class is to be named. `annotations` is a folder
    of published episode files (MTV's) to use instead of drawing episodes. `disjoint_classes` keeps eval classes new.
    """

    ways: Positive = 2
    shots: Count = 1
    options: bool = True
    disjoint_classes: bool = False
    annotations: Annotated[str, PATH] = ""
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
    `family` is how pictures are drawn. `validation` examples are held out of the support: no scan, bank or search sees
    them, settings are chosen on them. `label_noise` is the share of both with wrong labels, for every seed the same;
    where labels are no closed set, these are answers of other examples.
    """

    name: str = MISSING
    loader: str = MISSING
    task: str = MISSING
    root: Annotated[str, PATH] = ""
    support_split: str = "train"
    eval_split: str = "test"
    metric: Annotated[str, OneOf(*METRICS)] = "exact_match"
    skip_broken: bool = False
    partition: Positive = 1
    streaming: bool = False
    episode: EpisodeConfig = field(default_factory=EpisodeConfig)
    fields: FieldsConfig = field(default_factory=FieldsConfig)
    support: Positive = 200
    validation: Count = 0
    eval: Positive = 100
    family: str = "plain"
    explicit_question: bool = False
    label_noise: Share = 0.0
    max_new_tokens: Positive = 20
    template: TemplateConfig = field(default_factory=TemplateConfig)


@dataclass
class FitConfig:
    """What of `dataset` is other where a method learns, as in `fit.task=antonym dataset.task=comparative`.

    Support, demonstrations and validation are from there, `dataset` has the queries. What is empty is as in `dataset`.
    """

    name: str = ""
    loader: str = ""
    task: str = ""
    root: Annotated[str, PATH] = ""
    family: str = ""
    template: TemplateConfig = field(default_factory=lambda: TemplateConfig("", "", "", ""))


@dataclass
class DemonstrationsConfig:
    """How demonstrations are chosen: random, balanced, nearest_question, nearest_image or facility_location."""

    choice: Annotated[str, CHOICES] = "random"


@dataclass
class MethodConfig:
    """Three choices: `where` to insert, `what` the candidates are, `how` one candidate a location is chosen.

    Or none of them and `edit`, which has parameters to train. Each is a name (`--help` lists them) or the dotted
    path of a class. `site` is head, attention, mlp or residual; `k` locations of it, `m` candidates a location. `shots`
    demonstrations stand in the prompt when it is evaluated.
    """

    name: str = MISSING
    where: str = MISSING
    what: str = MISSING
    how: str = MISSING
    edit: str = "none"
    site: Annotated[str, OneOf("head", "attention", "mlp", "residual")] = "head"
    shots: Count = 0
    k: Count = 0
    m: Positive = 1
    sensitivity: str = "l2"


@dataclass
class ScanConfig:
    """T `pairs` of `shots` demonstrations; `effect_prompts` show them shuffled; `per_label` examples to classify by."""

    pairs: Positive = 100
    shots: Positive = 4
    effect_prompts: Positive = 25
    per_label: Positive = 20


@dataclass
class BankConfig:
    """`identity` adds the candidate "leave this location alone" to every location."""

    identity: bool = False


@dataclass
class InsertionConfig:
    """How a vector v enters an activation x. `when` is every_step or prompt; `mode` is replace, add or blend.

    With `weight` w: (1 - w) x + w v in a blend, x + w v in an addition. `norm_preserving` keeps the length of x.
    """

    when: Annotated[str, OneOf("every_step", "prompt")] = "every_step"
    mode: Annotated[str, OneOf("replace", "add", "blend")] = "replace"
    weight: Annotated[float, Range(-1000, 1000)] = 1.0
    norm_preserving: bool = False


@dataclass
class TrainerConfig:
    """How stages run; none of it changes a result, so none of it is part of a run's identity.

    Progress bars are drawn on a terminal only. `threads` is torch's number of CPU threads (0: its own choice, which
    launchers set to a job's share of the cores). `devices` are processes with a copy of the model each, among which
    the prompts of scan and evaluation are divided.
    """

    accelerator: Annotated[str, OneOf("cpu", "cuda", "mps")] = "cpu"
    devices: Annotated[int, Range(1, 64)] = 1
    batch_size: Positive = 32
    progress_bar: bool = True
    threads: Annotated[int, Range(0, 1024)] = 0


@dataclass
class Config:
    """Everything a job needs. `job` is `run` (a method on a task), `pretrain` (the testbed) or `check_data`.

    Runs are compared within their `study`, which grows with every run; `study_fresh` starts it over. A sweep refuses
    jobs that cannot work, before the first one, and runs the others; with `fail_fast` it stops at the first fault.

    `budget` is the most token-forwards before the evaluation, scan and teacher counted: searches and trainings take
    fewer steps for it, others are refused (0: any). `plan` prints what there would be to do, and what it costs, and
    stops. `limit` is the most examples of each split (0: all). `debug` runs every stage on a few examples for a few
    steps, in a folder that is removed at the end.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    demonstrations: DemonstrationsConfig = field(default_factory=DemonstrationsConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    scan: ScanConfig = field(default_factory=ScanConfig)
    bank: BankConfig = field(default_factory=BankConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    insertion: InsertionConfig = field(default_factory=InsertionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    job: Annotated[str, OneOf("run", "pretrain", "check_data")] = "run"
    seed: Count = 0
    budget: Many = 0
    outputs: Annotated[str, FOLDER] = "outputs"
    study: Annotated[str, NAME] = "runs"
    study_fresh: bool = False
    fail_fast: bool = False
    plan: bool = False
    limit: Count = 0
    debug: bool = False


def learned_from(config: Config) -> DatasetConfig:
    """The dataset that a method learns from: `config.dataset` with what `config.fit` has."""
    own = filled(asdict(config.fit))
    template = replace(config.dataset.template, **own.pop("template", {}))
    return replace(config.dataset, **own, template=template)


def filled(section: Mapping[str, Any]) -> dict[str, Any]:
    """What is not empty of a section of settings and of those in it."""
    inner = {key: filled(value) if isinstance(value, Mapping) else value for key, value in section.items()}
    return {key: value for key, value in inner.items() if value}


def setting(config: Config, key: str) -> Any:
    """The value of a dotted key such as `policy.steps`."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
