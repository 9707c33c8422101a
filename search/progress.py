"""Where a search stands: which pairs are done, what is recorded of them, and how it is resumed."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from report.records import Generation, PairRecord
from report.run import Run
from runtime.checkpoint import check_weights, load_newest_checkpoint, published_state_dict
from runtime.errors import UserError
from runtime.progress_bar import format_seconds, progress_bar
from runtime.untrusted import is_whole_number
from search.budget import Budget
from search.candidate import Outcome
from slow_fast_learning import Population
from utils import all_finite

CHECKPOINT_FILE = "checkpoint.pt"

KEPT_WEIGHT_SET = "weight_set-generation-{generation}.pt"

Pair = tuple[int, int]


class SearchProgress:
    """Counts generations and pairs, records what came of them, and saves after each round.

    Args:
        run: where that is written.
        generations: of the whole search.
        learning, weight_set: what is saved and restored beside the counts.
        budget: of the search; records say what was outside it.
        keep_every: keep the weight set after every so many generations, too; 0: after none.

    Attributes:
        generation: the current generation, from 0.
        pairs: the current generation's pairs.
        pairs_done: how many of them are done.
    """

    def __init__(
        self,
        run: Run,
        generations: int,
        learning: Population,
        weight_set: Mapping[str, Tensor],
        budget: Budget,
        keep_every: int = 0,
    ) -> None:
        self.run = run
        self.processes = run.processes
        self.generations = generations
        self.learning = learning
        self.weight_set = weight_set
        self.budget = budget
        self.keep_every = keep_every
        self.generation = 0
        self.pairs: list[Pair] = []
        self.pairs_done = 0
        self._records: list[dict] = []
        self._pairs_each = len(learning.positions) // 2

    def begin(self, resume: bool) -> None:
        """Begin, or go on from the run folder's checkpoint if the run got as far as writing one.

        Raises:
            UserError: the checkpoint or the history is damaged, or not one of this search.
        """
        if resume:
            state = self.run.read(CHECKPOINT_FILE, self._load_state)
            if state:
                self.generation = state["generation"]
                self.pairs = [tuple(pair) for pair in state["pairs"]]
                self.pairs_done = state["pairs_done"]
                self.learning.load_state_dict(state["learning"])
                for name, tensor in state["weight_set"].items():
                    self.weight_set[name].copy_(tensor)
            length = state["history_length"] if state else 0
            self._records = self.run.truncate_history(length, self._check_record)
            self.run.log.info(
                "resumed in generation %d after %d of its pairs",
                self.generation + 1, self.pairs_done,
            )  # fmt: skip
        self.run.begin(self.generation)

    def rounds(self) -> Iterator[list[Pair]]:
        """The pairs still to do, generation by generation, one a process at a time.

        With one process a round is one pair, as published. `finish_round` leads on to the next.
        """
        size = self.processes.size
        while self.generation < self.generations:
            # Drawn once; a resumed search has the pairs of the generation it was stopped in.
            self.pairs = self.pairs or self.learning.draw_pairs()
            firsts = range(self.pairs_done, len(self.pairs), size)
            yield from progress_bar(
                [self.pairs[first : first + size] for first in firsts],
                f"generation {self.generation + 1}/{self.generations}",
                "round",
                math.ceil(len(self.pairs) / size),
                self.pairs_done // size,
                shown=self.processes.is_main,
            )

    def record_pair(self, pair: Pair, outcomes: list[Outcome], slow: int | None) -> None:
        """Write a pair's outcome to the history; `save` counts it as done."""
        record = {
            "generation": self.generation,
            "pair": self.pairs_done,
            "members": pair,
            "genotypes": [outcome.genotype._asdict() for outcome in outcomes],
            "losses": [_json_number(outcome.loss) for outcome in outcomes],
            "accuracies": [_json_number(outcome.accuracy) for outcome in outcomes],
            "slow": slow,
            "diversity": self.learning.diversity(),
            "seconds": sum(outcome.seconds for outcome in outcomes),
        }
        if self.budget.is_given:
            record["excesses"] = [outcome.excess for outcome in outcomes]
        self.pairs_done += 1
        self._records.append(record)
        self.run.record(record)
        self.run.log.info(
            "generation %d pair %d/%d: members %d and %d, losses %s and %s, "
            "accuracies %.2f %% and %.2f %%, slow learner %s, %s",
            self.generation + 1, self.pairs_done, len(self.pairs), *pair,
            *("outside the budget" if o.excess else f"{o.loss:.4f}" for o in outcomes),
            *(outcome.accuracy for outcome in outcomes),
            "neither" if slow is None else slow, format_seconds(record["seconds"]),
        )  # fmt: skip

    def finish_round(self) -> None:
        """Write the checkpoint after a round; at a generation's end go over to the next one."""
        # Each process has merged the round for itself; a difference now would only grow.
        self.processes.check_agreement(self.weight_set.values(), self.learning.state_dict())
        generation_ends = self.pairs_done == len(self.pairs)
        if generation_ends:
            self._finish_generation()
            if self.keep_every and self.generation % self.keep_every == 0:
                name = KEPT_WEIGHT_SET.format(generation=self.generation)
                self.run.save(name, {"state_dict": self.weight_set})
        state = {
            "generation": self.generation,
            "pairs": self.pairs,
            "pairs_done": self.pairs_done,
            "learning": self.learning.state_dict(),
            "weight_set": self.weight_set,
            "history_length": len(self._records),
        }
        self.run.save(CHECKPOINT_FILE, state, keep_previous=True)
        if generation_ends:
            self.run.refresh_report()

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
        # Processes work side by side: the time left is by the clock, not by the sum of their work.
        seconds = own.seconds / self.processes.size
        so_far = sum(record["seconds"] for record in self._records) / self.processes.size
        seconds_left = (self.generations - done) * so_far / done
        self.run.log.info(
            "generation %d/%d: diversity %.3f, best loss %.4f, %s, %s left",
            done, self.generations, own.diversity, own.losses.best,
            format_seconds(seconds), format_seconds(seconds_left),
        )  # fmt: skip
        self.run.write_scalars(done, own.scalars(self.budget.target))
        self.generation = done
        self.pairs = []
        self.pairs_done = 0


def _json_number(value: float) -> float | None:
    """JSON has no NaN and no infinity; they become null."""
    return value if math.isfinite(value) else None
