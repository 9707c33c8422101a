"""Where a search stands: which pairs are done, what is recorded of them, and how it is resumed."""

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from report.history import Generation, PairRecord
from runtime.checkpoint import (
    check_weights,
    load_newest_checkpoint,
    published_state_dict,
    save_checkpoint,
)
from runtime.errors import UserError
from runtime.processes import Processes
from runtime.progress import format_seconds, progress_bar
from runtime.run_folder import RunFolder
from runtime.scalar_log import ScalarLog
from runtime.untrusted import is_whole_number
from search.candidate import Outcome
from slow_fast_learning import Population
from utils import all_finite

CHECKPOINT_FILE = "checkpoint.pt"

Pair = tuple[int, int]


class SearchProgress:
    """Counts generations and pairs; in the main process it writes history and checkpoints.

    Args:
        run: the run folder; None in all processes but the main one.

    Attributes:
        generation: the current generation, from 0.
        pairs: the current generation's pairs.
        pairs_done: how many of them are done.
    """

    def __init__(
        self,
        run: RunFolder | None,
        processes: Processes,
        generations: int,
        learning: Population,
        weight_set: Mapping[str, Tensor],
        scalars: ScalarLog,
    ) -> None:
        self.run = run
        self.processes = processes
        self.generations = generations
        self.learning = learning
        self.weight_set = weight_set
        self.scalars = scalars
        self.generation = 0
        self.pairs: list[Pair] = []
        self.pairs_done = 0
        self.log = logging.getLogger("relativenas")
        self._records: list[dict] = []
        self._pairs_each = len(learning.positions) // 2

    @property
    def finished(self) -> bool:
        """Whether all generations are done."""
        return self.generation == self.generations

    def resume(self) -> None:
        """Go on from the run folder's checkpoint, if the run got as far as writing one.

        Raises:
            UserError: the checkpoint or the history is damaged, or not one of this search.
        """
        state = self._load_state(self.run.path / CHECKPOINT_FILE) if self.run else None
        state = self.processes.broadcast(state)
        if state:
            self.generation = state["generation"]
            self.pairs = [tuple(pair) for pair in state["pairs"]]
            self.pairs_done = state["pairs_done"]
            self.learning.load_state_dict(state["learning"])
            for name, tensor in state["weight_set"].items():
                self.weight_set[name].copy_(tensor)
        if self.run:
            length = state["history_length"] if state else 0
            self._records = self.run.truncate_history(length, self._check_record)
        self.log.info(
            "resumed in generation %d after %d of its pairs", self.generation + 1, self.pairs_done
        )

    def remaining_rounds(self) -> Iterator[list[Pair]]:
        """The current generation's pairs still to do, one a process at a time; drawn if new."""
        if not self.pairs:
            self.pairs = self.learning.draw_pairs()
        size = self.processes.size
        firsts = range(self.pairs_done, len(self.pairs), size)
        rounds = [self.pairs[first : first + size] for first in firsts]
        name = f"generation {self.generation + 1}/{self.generations}"
        return progress_bar(
            rounds, name, "round", math.ceil(len(self.pairs) / size), self.pairs_done // size,
            shown=self.processes.is_main,
        )  # fmt: skip

    def record_pair(self, pair: Pair, outcomes: list[Outcome], slow: int | None) -> None:
        """Write a pair's outcome to the history; `save` counts it as done."""
        record = {
            "generation": self.generation,
            "pair": self.pairs_done,
            "members": pair,
            "genotypes": [outcome.genotype._asdict() for outcome in outcomes],
            "losses": [_json_number(outcome.loss) for outcome in outcomes],
            "accuracies": [outcome.accuracy for outcome in outcomes],
            "slow": slow,
            "diversity": self.learning.diversity(),
            "seconds": sum(outcome.seconds for outcome in outcomes),
        }
        self.pairs_done += 1
        self._records.append(record)
        if self.run:
            self.run.append_history(record)
        self.log.info(
            "generation %d pair %d/%d: members %d and %d, losses %.4f and %.4f, "
            "accuracies %.2f %% and %.2f %%, slow learner %s, %s",
            self.generation + 1, self.pairs_done, len(self.pairs), *pair,
            *(outcome.loss for outcome in outcomes), *(outcome.accuracy for outcome in outcomes),
            "neither" if slow is None else slow, format_seconds(record["seconds"]),
        )  # fmt: skip

    def save(self) -> None:
        """Write the checkpoint after a round; at a generation's end go over to the next one."""
        # All processes must be about to save the same.
        self.processes.check_agreement(self.weight_set.values(), self.learning.state_dict())
        if self.pairs_done == len(self.pairs):
            self._finish_generation()
        if self.run:
            state = {
                "generation": self.generation,
                "pairs": self.pairs,
                "pairs_done": self.pairs_done,
                "learning": self.learning.state_dict(),
                "weight_set": self.weight_set,
                "history_length": len(self._records),
            }
            save_checkpoint(state, self.run.path / CHECKPOINT_FILE, keep_previous=True)

    def _load_state(self, path: Path) -> dict | None:
        state = load_newest_checkpoint(path)
        if state is None:
            return None
        try:
            self._check_state(state)
            self.learning.load_state_dict(state["learning"])
            weight_set = published_state_dict({"state_dict": state["weight_set"]}, path)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise UserError(
                f"checkpoint {path}: not what this search can go on from ({reason}); search anew"
            ) from None
        check_weights(self.weight_set, weight_set, path)
        if not all_finite(weight_set.values()):
            raise UserError(f"checkpoint {path}: a weight is infinite or NaN; search anew")
        return {**state, "weight_set": weight_set}

    def _check_state(self, state: dict) -> None:
        if not is_whole_number(state["generation"], 0, self.generations):
            raise ValueError(f"its generation is none from 0 to {self.generations}")
        pairs, population = state["pairs"], range(2 * self._pairs_each)
        if pairs and (
            len(pairs) != self._pairs_each
            or any(len(pair) != 2 for pair in pairs)
            or any(type(member) is not int for pair in pairs for member in pair)
            or sorted(member for pair in pairs for member in pair) != list(population)
        ):
            raise ValueError("its pairs are not pairs of the population")
        if not is_whole_number(state["pairs_done"], 0, max(0, len(pairs) - 1)):
            raise ValueError("its number of pairs done is wrong")
        if state["history_length"] != state["generation"] * self._pairs_each + state["pairs_done"]:
            raise ValueError("its number of records is wrong")

    def _check_record(self, number: int, record: dict) -> bool:
        """Whether this search can have written the history's record `number` (from 0)."""
        try:
            return PairRecord.from_record(record).generation == number // self._pairs_each
        except (KeyError, TypeError, ValueError):
            return False

    def _finish_generation(self) -> None:
        own = Generation(
            self.generation,
            [
                PairRecord.from_record(record)
                for record in self._records
                if record["generation"] == self.generation
            ],
        )
        done = self.generation + 1
        # Processes work side by side, so that the clock sees a part of the pairs' seconds.
        seconds = own.seconds / self.processes.size
        so_far = sum(record["seconds"] for record in self._records) / self.processes.size
        seconds_left = (self.generations - done) * so_far / done
        self.log.info(
            "generation %d/%d: diversity %.3f, best loss %.4f, %s, %s left",
            done, self.generations, own.diversity, own.losses.best,
            format_seconds(seconds), format_seconds(seconds_left),
        )  # fmt: skip
        self.scalars.write(done, own.scalars())
        self.generation = done
        self.pairs = []
        self.pairs_done = 0


def _json_number(value: float) -> float | None:
    """JSON has no NaN and no infinity; they become null."""
    return value if math.isfinite(value) else None
