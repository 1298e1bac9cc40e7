"""`LightningCLI` as this package uses it: a recipe and overrides in, a model, its data and a Trainer out."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentError
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from rnnzoo import bundle
from rnnzoo.callbacks.epoch_table import EpochTable
from rnnzoo.callbacks.exact_resume import BestCheckpoint, LastCheckpoint
from rnnzoo.callbacks.throughput import Throughput
from rnnzoo.checkpoints import FOLDER, AtomicCheckpointIO
from rnnzoo.cli.class_paths import check_classes
from rnnzoo.cli.config_errors import explain_config_error, find_class, refuse_unknown_keys
from rnnzoo.cli.imports import import_named
from rnnzoo.cli.metrics_log import MetricsLog
from rnnzoo.cli.resume import Interrupted
from rnnzoo.data.base import ZooData
from rnnzoo.errors import InputError, find_input_error
from rnnzoo.models.base import ZooModel
from rnnzoo.terminal import escaped_stdout

TRAINER_DEFAULTS = {
    "max_epochs": 10,
    "use_distributed_sampler": False,
    "enable_model_summary": False,
    "log_every_n_steps": 10,  # of a learning rate that changes with every step
}


def quiet_lightning() -> None:
    """Silence advice that does not apply here; errors and real warnings stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*The number of training batches.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*LightningCLI's args parameter.*",
        ".*Experiment logs directory .* exists and is not empty.*",
        ".*module\\(s\\) in eval mode at the start of training.*",  # frozen parts
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
        ".*Trying to infer the `batch_size`.*",
        ".*recommended to use `self.log.*sync_dist=True.*",
        ".*resuming from a checkpoint that ended before the epoch ended.*",  # the data begin where it ended
    ):
        warnings.filterwarnings("ignore", message=message)


class ZooCLI(LightningCLI):
    """Parse a recipe with overrides and build what it describes.

    Args:
        args: ``--config FILE`` and ``--key=value`` in order of rising priority.
        run_folder: where checkpoints and logs go; None keeps no files.
        seed: the seed if neither recipe nor overrides give one.
        resumed: the run that is resumed, if there is one.

    Raises:
        InputError: for anything in the recipe or the overrides that does not fit.
    """

    def __init__(
        self, args: list[str], *, run_folder: Path | None, seed: int = 1, resumed: Interrupted | None = None
    ) -> None:
        import_named(args)
        self.run_folder = run_folder
        self.resumed = resumed
        self.throughput = Throughput()
        try:
            super().__init__(
                model_class=ZooModel,
                datamodule_class=ZooData,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=None,
                seed_everything_default=seed,
                trainer_defaults=TRAINER_DEFAULTS,
                parser_kwargs={"exit_on_error": False, "dump_header": []},
                args=args,
                run=False,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
            )
        except ArgumentError as error:
            raise explain_config_error(error) from error
        except MisconfigurationException as error:  # Lightning refuses its own arguments with this
            raise InputError("trainer", expected="a setting that works here", got=str(error)) from error
        except ValueError as error:  # jsonargparse wraps what a constructor raised
            raise find_input_error(error) or error from None
        self.warm_start = None if self.model.init_from is None else bundle.warm_start(self.model)
        self.model.freeze_parts(self.model.to_freeze)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Keep the names of the user's own code in the configuration, and hand the data's processor to the model."""
        parser.add_argument("--imports", type=list[str], default=[], help="files or modules to run first")
        parser.link_arguments("data.processor", "model.init_args.processor", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, after the checks for unknown keys and for classes that are no such thing."""
        refuse_unknown_keys(args)
        check_classes(args)
        argv, sys.argv = sys.argv, sys.argv[:1]  # LightningCLI warns when both are given
        try:
            with escaped_stdout():  # for --print_config and --model.help
                super().parse_arguments(parser, args)
        finally:
            sys.argv = argv
        check_ranges(self.config)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer with the package's logging and checkpoints beside those of the recipe."""
        settings = self.config_init["trainer"]
        if self.run_folder is None or settings.get("fast_dev_run"):
            return super().instantiate_trainer(logger=False, enable_checkpointing=False, **kwargs)
        extra: list[Any] = [self.throughput]
        metric, mode = self.model.selection
        if settings.get("enable_checkpointing") is not False:
            folder = self.run_folder / FOLDER
            extra += [BestCheckpoint(folder, metric=metric, mode=mode), LastCheckpoint(folder)]
        columns = ("train/loss", "val/loss", f"val/{metric}", "train/objective", "train/gradient_norm", "train/clipped")
        extra.append(EpochTable(tuple(dict.fromkeys((*columns, "train/learning_rate")))))
        if settings.get("enable_progress_bar") is not False:
            extra.append(TQDMProgressBar(refresh_rate=1 if sys.stdout.isatty() else 25, leave=False))
        settings["callbacks"] = [*(settings.get("callbacks") or []), *extra]
        if settings.get("logger") in (None, True):
            kwargs["logger"] = self._loggers()
        trainer = super().instantiate_trainer(**kwargs)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # users may have one of their own
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        return trainer

    def _loggers(self) -> list[Logger]:
        assert self.run_folder is not None
        steps = 0 if self.resumed is None else self.resumed.steps
        loggers: list[Logger] = [MetricsLog(self.run_folder, steps=steps)]
        if find_spec("tensorboard") or find_spec("tensorboardX"):
            name = self.run_folder.name
            loggers.append(TensorBoardLogger(self.run_folder.parent, name=name, version=""))
        return loggers

    def resolved(self) -> str:
        """Return the whole configuration as YAML: a recipe that repeats this run."""
        text = self.parser.dump(self.config, skip_none=False, skip_link_targets=True, format="yaml")
        tree = yaml.safe_load(text)
        files = [str(Path(name).resolve()) if Path(name).is_file() else name for name in tree.get("imports") or []]
        tree["imports"] = list(dict.fromkeys(files))  # a run may be resumed from another folder
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def check_ranges(config: Any) -> None:
    """Refuse numbers that their types allow and that mean nothing.

    Raises:
        InputError: for the first of them.
    """
    seed, clip = config.seed_everything, config.trainer.gradient_clip_val
    if not isinstance(seed, bool) and not 0 <= seed < 2**32:
        raise InputError("seed_everything", expected=f"an integer from 0 to {2**32 - 1}", got=str(seed))
    if clip is not None and not clip >= 0:  # NaN neither
        raise InputError("trainer.gradient_clip_val", expected="a norm of at least 0; 0 does not clip", got=str(clip))


def build_for_test(recipe: dict[str, Any] | None, configs: list[str], overrides: list[str]) -> tuple[ZooData, Trainer]:
    """Build the data of a trained model, and a Trainer that only evaluates.

    Args:
        recipe: the ``data`` section of the recipe that trained the model.
        configs: further YAML files.
        overrides: ``--data.key=value`` and ``--trainer.key=value``.

    Raises:
        InputError: for anything that does not fit, or if nothing says what the data are.
    """
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("-c", "--config", action=ActionConfigFile)
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.set_defaults({"trainer.use_distributed_sampler": False, "trainer.logger": False})
    parser.set_defaults({"trainer.enable_checkpointing": False, "trainer.enable_progress_bar": sys.stderr.isatty()})
    parser.add_lightning_class_args(ZooData, "data", subclass_mode=True)
    base = [f"--data={json.dumps(recipe)}"] if recipe else []
    given = [*(f"--config={config}" for config in configs), *overrides]
    refuse_unknown_keys(given, {"data": find_class("data", recipe["class_path"])} if recipe else {})
    check_classes(given, {"data": recipe} if recipe else {})
    args = [*base, *given]
    try:
        built = parser.instantiate_classes(parser.parse_args(args))
    except ArgumentError as error:
        raise explain_config_error(error) from error
    except ValueError as error:
        raise find_input_error(error) or error from None
    return built.data, Trainer(**built.trainer)
