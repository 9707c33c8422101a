"""Where a search stands: which pairs are done, what is recorded of them, and how it is resumed."""

import math
from collections.abc import Iterator, Mapping

from torch import Tensor

from candidate import Outcome
from checkpoint import load_checkpoint, save_checkpoint
from genotypes import Genotype
from progress import format_seconds, progress_bar
from run_folder import RunFolder
from slow_fast_learning import Population

CHECKPOINT_FILE = "checkpoint.pt"

Pair = tuple[int, int]


class SearchProgress:
    """Counts generations and pairs, writes history and checkpoint after every pair.

    Attributes:
        generation: the current generation, from 0.
        pairs: the current generation's pairs.
        pairs_done: how many of them are done.
    """

    def __init__(
        self,
        run: RunFolder,
        generations: int,
        learning: Population,
        weight_set: Mapping[str, Tensor],
    ) -> None:
        self.run = run
        self.generations = generations
        self.learning = learning
        self.weight_set = weight_set
        self.generation = 0
        self.pairs: list[Pair] = []
        self.pairs_done = 0
        self._records: list[dict] = []
        self._history_length = 0

    @property
    def finished(self) -> bool:
        """Whether all generations are done."""
        return self.generation == self.generations

    def resume(self) -> None:
        """Go on from the run folder's checkpoint, if it got as far as writing one."""
        path = self.run.path / CHECKPOINT_FILE
        if not path.exists():
            self.run.truncate_history(0)
            return
        state = load_checkpoint(path)
        self.generation = state["generation"]
        self.pairs = [tuple(pair) for pair in state["pairs"]]
        self.pairs_done = state["pairs_done"]
        self.learning.load_state_dict(state["learning"])
        for name, tensor in state["weight_set"].items():
            self.weight_set[name].copy_(tensor)
        self._history_length = state["history_length"]
        self.run.truncate_history(self._history_length)
        self._records = self.run.read_history()
        self.run.log.info(
            "resumed in generation %d after %d of its pairs", self.generation + 1, self.pairs_done
        )

    def remaining_pairs(self) -> Iterator[Pair]:
        """The current generation's pairs that are still to do, drawn if it is new."""
        if not self.pairs:
            self.pairs = self.learning.draw_pairs()
        name = f"generation {self.generation + 1}/{self.generations}"
        return progress_bar(
            self.pairs[self.pairs_done :], name, "pair", len(self.pairs), self.pairs_done
        )

    def record_pair(
        self,
        pair: Pair,
        genotypes: list[Genotype],
        outcomes: list[Outcome],
        slow: int | None,
        seconds: float,
    ) -> None:
        """Write a pair's outcome to the history, then the checkpoint that counts it as done."""
        record = {
            "generation": self.generation,
            "pair": self.pairs_done,
            "members": pair,
            "genotypes": [genotype._asdict() for genotype in genotypes],
            "losses": [_json_number(outcome.loss) for outcome in outcomes],
            "accuracies": [outcome.accuracy for outcome in outcomes],
            "slow": slow,
            "diversity": self.learning.diversity(),
            "seconds": seconds,
        }
        self._records.append(record)
        self._history_length = self.run.append_history(record)
        self.pairs_done += 1
        self.run.log.info(
            "generation %d pair %d/%d: members %d and %d, losses %.4f and %.4f, "
            "accuracies %.2f %% and %.2f %%, slow learner %s, %s",
            self.generation + 1, self.pairs_done, len(self.pairs), *pair,
            *(outcome.loss for outcome in outcomes), *(outcome.accuracy for outcome in outcomes),
            "neither" if slow is None else slow, format_seconds(seconds),
        )  # fmt: skip
        if self.pairs_done == len(self.pairs):
            self._finish_generation()
        self._save()

    def _finish_generation(self) -> None:
        own = [record for record in self._records if record["generation"] == self.generation]
        losses = [loss for record in own for loss in record["losses"] if loss is not None]
        seconds = sum(record["seconds"] for record in own)
        pairs_left = (self.generations - self.generation - 1) * len(self.pairs)
        seconds_a_pair = sum(record["seconds"] for record in self._records) / len(self._records)
        self.run.log.info(
            "generation %d/%d: diversity %.3f, best loss %.4f, %s, %s left",
            self.generation + 1, self.generations, own[-1]["diversity"],
            min(losses, default=math.nan), format_seconds(seconds),
            format_seconds(pairs_left * seconds_a_pair),
        )  # fmt: skip
        self.generation += 1
        self.pairs = []
        self.pairs_done = 0

    def _save(self) -> None:
        state = {
            "generation": self.generation,
            "pairs": self.pairs,
            "pairs_done": self.pairs_done,
            "learning": self.learning.state_dict(),
            "weight_set": self.weight_set,
            "history_length": self._history_length,
        }
        save_checkpoint(state, self.run.path / CHECKPOINT_FILE)


def _json_number(value: float) -> float | None:
    """JSON has no NaN and no infinity; they become null."""
    return value if math.isfinite(value) else None
