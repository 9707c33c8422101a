"""One-line mistakes that would change the method, and whether the tests see them.

`make mutants` puts in one after the other, each in a copy of the project, and runs the tests
nearest to it. It prints for each whether it was killed (a test failed), survived (none did), no
longer applies (what it replaces does not stand in the file exactly once) or did not run, and ends
with status 1 unless all were killed. Words after the command choose: `python tests/mutants.py
dropout candidate.py` tries the mutants with one of these words in their file or reason.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).parent.parent

TIME_LIMIT = 300
"""Seconds that the tests of a mutant may take."""


class Mutant(NamedTuple):
    """In `file`, `stands` becomes `becomes`; one of `tests` (names of test files) must see it."""

    file: str
    stands: str
    becomes: str
    tests: str
    why: str


SEARCH = [
    Mutant(
        "candidate.py",
        "recipe.momentum, weight_decay=recipe.weight_decay",
        "recipe.momentum",
        "test_candidate",
        "no weight decay",
    ),
    Mutant(
        "candidate.py",
        "recipe.learning_rate, recipe.momentum, weight",
        "recipe.learning_rate, weight",
        "test_candidate",
        "no momentum",
    ),
    Mutant(
        "candidate.py",
        "recipe.momentum, weight_decay=recipe.weight_decay",
        "recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True",
        "test_candidate",
        "Nesterov's momentum",
    ),
    Mutant(
        "candidate.py",
        "            clip_gradients(parameters, recipe.grad_clip)\n",
        "",
        "test_candidate",
        "gradients not clipped",
    ),
    Mutant(
        "candidate.py",
        (
            "            clip_gradients(parameters, recipe.grad_clip)\n"
            "            optimizer.step()\n"
        ),
        (
            "            optimizer.step()\n"
            "            clip_gradients(parameters, recipe.grad_clip)\n"
        ),
        "test_candidate",
        "gradients clipped after the step",
    ),
    Mutant(
        "candidate.py",
        "supernet.drop_path_prob = recipe.drop_path_prob",
        "supernet.drop_path_prob = 0.0",
        "test_candidate",
        "no drop path",
    ),
    Mutant(
        "candidate.py",
        "            optimizer.zero_grad()\n            self._backward",
        "            self._backward",
        "test_candidate",
        "gradients add up over the steps",
    ),
    Mutant(
        "candidate.py",
        "optimizer = torch.optim.SGD(",
        'optimizer = self.optimizer = getattr(self, "optimizer", None) or torch.optim.SGD(',
        "test_candidate",
        "the optimizer and its momentum carried over to the next candidate",
    ),
    Mutant(
        "candidate.py",
        "parameters = [tensor for tensor in tensors if isinstance(tensor, nn.Parameter)]",
        "parameters = list(supernet.parameters())",
        "test_candidate",
        "all of the supernet's parameters trained, not the active ones",
    ),
    Mutant(
        "candidate.py",
        "        supernet.train()\n",
        "        supernet.eval()\n",
        "test_candidate",
        "candidates trained in eval mode",
    ),
    Mutant(
        "candidate.py",
        "        self.supernet.eval()\n",
        "",
        "test_candidate",
        "candidates validated in training mode",
    ),
    Mutant(
        "candidate.py",
        "self.data.validation_batches()",
        "self.data.training_batches(0)",
        "test_candidate",
        "candidates validated on the images to train on",
    ),
    Mutant(
        "candidate.py",
        "            self.validation_set, self.batch_size",
        "            self.train_set, self.batch_size",
        "test_candidate",
        "validation batches made of the images to train on",
    ),
    Mutant(
        "candidate.py",
        "            self.train_set, self.batch_size",
        "            self.validation_set, self.batch_size",
        "test_candidate",
        "candidates trained on the images to validate on",
    ),
    Mutant(
        "candidate.py",
        (
            "        return evaluation_batches(\n"
            "            self.validation_set, self.batch_size, self.statistics, self.device\n"
            "        )"
        ),
        (
            "        return training_batches(\n"
            "            self.validation_set, self.batch_size, self.augmentation,\n"
            "            self.statistics, 0, self.device\n"
            "        )"
        ),
        "test_candidate",
        "images to validate on augmented",
    ),
    Mutant(
        "candidate.py",
        "self.data.training_batches(seed)",
        "self.data.training_batches(0)",
        "test_candidate",
        "the same batches for every seed",
    ),
    Mutant(
        "candidate.py",
        "        torch.manual_seed(seed)  # of drop path\n",
        "",
        "test_candidate",
        "drop path not drawn from the seed",
    ),
    Mutant(
        "candidate.py",
        (
            "        with torch.no_grad():\n"
            "            torch._foreach_copy_(list(tensors.values()), weight_set)\n"
        ),
        "",
        "test_candidate",
        "the weight set not restored after a turn",
    ),
    Mutant(
        "candidate.py",
        'tensor.detach().to("cpu", copy=True)',
        "tensor.detach().cpu()",
        "test_candidate",
        "what was learned not copied before the weight set is restored",
    ),
    Mutant(
        "candidate.py",
        "        with autocast(images.device, self.precision):\n            loss",
        "        with autocast(images.device, torch.float32):\n            loss",
        "test_candidate",
        "--precision ignored in training",
    ),
    Mutant(
        "candidate.py",
        "            with autocast(images.device, self.precision):\n                logits",
        "            with autocast(images.device, torch.float32):\n                logits",
        "test_candidate",
        "--precision ignored in validation",
    ),
    Mutant(
        "candidate.py",
        "        if not all_finite(tensors.values()):\n            loss = math.nan\n",
        "",
        "test_numbers",
        "weights that are not finite pass if the loss is",
    ),
    Mutant(
        "candidate.py",
        "        if math.isfinite(loss):\n            learned",
        "        if True:\n            learned",
        "test_model_search",
        "weights of a loss that is not finite are kept",
    ),
    Mutant(
        "candidate.py",
        "F.cross_entropy(self.supernet(images, arch_info), labels)",
        "F.cross_entropy(self.supernet(images, arch_info), labels, label_smoothing=0.1)",
        "test_candidate",
        "labels smoothed in the search",
    ),
    Mutant(
        "candidate.py",
        'return result["loss"], result["top1"]',
        'return result["loss"], result["top5"]',
        "test_candidate",
        "top-5 accuracy told as the accuracy",
    ),
    Mutant(
        "candidate.py",
        "training_steps(len(self.train_set), self.batch_size)",
        "len(self.train_set) // self.batch_size",
        "test_search_recipe",
        "a smaller last batch not counted",
    ),
    Mutant(
        "train_search.py",
        "done = generation / args.epochs",
        "done = (generation + 1) / args.epochs",
        "test_search_recipe",
        "learning rate and drop path a generation early",
    ),
    Mutant(
        "train_search.py",
        "done = generation / args.epochs",
        "done = generation / max(1, args.epochs - 1)",
        "test_search_recipe",
        "the schedule ends in the last generation, not after it",
    ),
    Mutant(
        "train_search.py",
        "args.learning_rate_min + span",
        "span",
        "test_search_recipe",
        "the learning rate falls to zero, not to its minimum",
    ),
    Mutant(
        "train_search.py",
        "(1 + math.cos(math.pi * done)) / 2",
        "(1 - done)",
        "test_search_recipe",
        "the learning rate falls as a line",
    ),
    Mutant(
        "train_search.py",
        "drop_path_prob=args.drop_path_prob * done",
        "drop_path_prob=args.drop_path_prob",
        "test_search_recipe",
        "drop path does not rise",
    ),
    Mutant(
        "train_search.py",
        "momentum=args.momentum",
        "momentum=0.9",
        "test_search_recipe",
        "--momentum ignored",
    ),
    Mutant(
        "train_search.py",
        "weight_decay=args.weight_decay",
        "weight_decay=3e-4",
        "test_search_recipe",
        "--weight_decay ignored",
    ),
    Mutant(
        "train_search.py",
        "grad_clip=args.grad_clip",
        "grad_clip=5.0",
        "test_search_recipe",
        "--grad_clip ignored",
    ),
    Mutant(
        "train_search.py",
        "span = args.learning_rate - args.learning_rate_min",
        "span = 0.1 - args.learning_rate_min",
        "test_search_recipe",
        "--learning_rate ignored",
    ),
    Mutant(
        "train_search.py",
        "progress.generation, progress.pairs.index(pair))",
        "progress.pairs.index(pair))",
        "test_search_recipe",
        "the same batches in every generation",
    ),
    Mutant(
        "train_search.py",
        "derive_seed(args.seed, progress.generation, progress.pairs.index(pair))",
        "derive_seed(args.seed, progress.generation)",
        "test_search_recipe",
        "the same batches for every pair",
    ),
    Mutant(
        "train_search.py",
        "derive_seed(args.seed, progress.generation, progress.pairs.index(pair))",
        "derive_seed(0, progress.generation, progress.pairs.index(pair))",
        "test_search_recipe",
        "--seed ignored in the batches",
    ),
    Mutant(
        "train_search.py",
        "[trainer.take_turn(genotype, recipe, seed) for genotype in genotypes]",
        ("[trainer.take_turn(genotype, recipe, seed + i) for i, genotype in enumerate(genotypes)]"),
        "test_search_recipe",
        "the two of a pair see different batches",
    ),
    Mutant(
        "train_search.py",
        "learning.move(slow, fast)",
        "learning.move(fast, slow)",
        "test_search_recipe",
        "the fast learner moves towards the slow one",
    ),
    Mutant(
        "train_search.py",
        "update_weight_set(weight_set, weights[fast], weights[slow])",
        "update_weight_set(weight_set, weights[slow], weights[fast])",
        "test_search_steps",
        "the slow network's weights go first",
    ),
    Mutant(
        "train_search.py",
        "update_weight_set(weight_set, weights[fast], weights[slow])",
        "update_weight_set(weight_set, weights[fast], None)",
        "test_search_steps",
        "what only the slow network learned is lost",
    ),
    Mutant(
        "train_search.py",
        "                    update_weight_set(weight_set, weights[fast], weights[slow])\n",
        "",
        "test_search_steps",
        "the weight set never learns",
    ),
    Mutant(
        "train_search.py",
        "int(len(images) * args.train_portion)",
        "len(images) // 2",
        "test_search_recipe",
        "--train_portion ignored",
    ),
    Mutant(
        "train_search.py",
        "images.subset(order[train_count:])",
        "images.subset(order[:train_count])",
        "test_search_recipe",
        "validated on the images that are trained on",
    ),
    Mutant(
        "train_search.py",
        "images.subset(order[train_count:])",
        "images",
        "test_search_recipe",
        "validated on all images",
    ),
    Mutant(
        "train_search.py",
        "images.subset(order[:train_count])",
        "images",
        "test_search_recipe",
        "trained on all images",
    ),
    Mutant(
        "train_search.py",
        ("order = torch.randperm(len(images), generator=torch.Generator().manual_seed(args.seed))"),
        "order = torch.arange(len(images))",
        "test_search_recipe",
        "images not divided at random",
    ),
    Mutant(
        "train_search.py",
        "generator=torch.Generator().manual_seed(args.seed)",
        "generator=torch.Generator().manual_seed(7)",
        "test_search_recipe",
        "--seed ignored in dividing the images",
    ),
    Mutant(
        "train_search.py",
        'args.data, "train", args.image_size',
        'args.data, "test", args.image_size',
        "test_search_recipe",
        "searched on the test images",
    ),
    Mutant(
        "train_search.py",
        "images.images.shape[-1], args.cutout, args.cutout_length",
        "images.images.shape[-1], True, args.cutout_length",
        "test_search_recipe",
        "--no-cutout ignored",
    ),
    Mutant(
        "train_search.py",
        "images.images.shape[-1], args.cutout, args.cutout_length",
        "images.images.shape[-1], args.cutout",
        "test_search_recipe",
        "--cutout_length ignored",
    ),
    Mutant(
        "train_search.py",
        "            args.set, images.images.shape[-1], args.cutout",
        '            "digits", images.images.shape[-1], args.cutout',
        "test_search_recipe",
        "images not mirrored",
    ),
    Mutant(
        "train_search.py",
        "image_statistics(args.set, images",
        'image_statistics("cifar100", images',
        "test_search_recipe",
        "another set's mean and deviation",
    ),
    Mutant(
        "train_search.py",
        "batch_size=args.batch_size",
        "batch_size=256",
        "test_search_recipe",
        "--batch_size ignored",
    ),
    Mutant(
        "train_search.py",
        "    torch.manual_seed(args.seed)\n",
        "",
        "test_search_recipe",
        "the first weights not drawn from the seed",
    ),
    Mutant(
        "train_search.py",
        "Supernet(args.init_channels, classes, args.layers, args.save_memory)",
        "Supernet(args.init_channels, classes, args.layers)",
        "test_search_recipe",
        "--save_memory ignored",
    ),
    Mutant(
        "train_search.py",
        "precision = choose_precision(args.precision, processes.device)",
        "precision = torch.float32",
        "test_search_recipe",
        "--precision ignored",
    ),
    Mutant(
        "train_search.py",
        "args.pop_size, args.seed)",
        "args.pop_size, 0)",
        "test_search_recipe",
        "--seed ignored in the population",
    ),
    Mutant(
        "train_search.py",
        "LEARNERS[args.learner](",
        'LEARNERS["published"](',
        "test_search_recipe",
        "--learner ignored",
    ),
    Mutant(
        "train_search.py",
        'add("--train_portion", type=probability, default=0.5',
        'add("--train_portion", type=probability, default=0.8',
        "test_search_recipe",
        "another part of the images to train on",
    ),
    Mutant(
        "train_search.py",
        'default="published"',
        'default="shuffled"',
        "test_search_recipe",
        "another learner by default",
    ),
    Mutant(
        "train_search.py",
        'add("--pop_size", type=int, default=20',
        'add("--pop_size", type=int, default=10',
        "test_search_recipe",
        "another population",
    ),
    Mutant(
        "train_search.py",
        'add("--epochs", type=positive_int, default=50',
        'add("--epochs", type=positive_int, default=60',
        "test_search_recipe",
        "another number of generations",
    ),
    Mutant(
        "train_search.py",
        "default=256, help",
        "default=128, help",
        "test_search_recipe",
        "another batch size",
    ),
    Mutant(
        "train_search.py",
        "default=16, help",
        "default=36, help",
        "test_search_recipe",
        "another number of channels",
    ),
    Mutant(
        "train_search.py",
        "default=8, help",
        "default=20, help",
        "test_search_recipe",
        "another number of cells",
    ),
    Mutant(
        "train_search.py",
        "default=0.1, help",
        "default=0.025, help",
        "test_search_recipe",
        "another learning rate",
    ),
    Mutant(
        "train_search.py",
        "default=0.001, help",
        "default=0.0, help",
        "test_search_recipe",
        "another smallest learning rate",
    ),
    Mutant(
        "train_search.py",
        "default=0.9, help",
        "default=0.0, help",
        "test_search_recipe",
        "another momentum",
    ),
    Mutant(
        "train_search.py",
        "default=3e-4, help",
        "default=3e-5, help",
        "test_search_recipe",
        "another weight decay",
    ),
    Mutant(
        "train_search.py",
        "default=5.0,",
        "default=1.0,",
        "test_search_recipe",
        "another largest norm of gradients",
    ),
    Mutant(
        "train_search.py",
        "default=0.3, help",
        "default=0.2, help",
        "test_search_recipe",
        "another drop path",
    ),
    Mutant(
        "train_search.py",
        "default=7, help",
        "default=0, help",
        "test_search_recipe",
        "another seed",
    ),
    Mutant(
        "train_search.py",
        "decode(vector) for vector in learning.positions]",
        "decode(vector) for vector in sorted(learning.positions, key=sum)]",
        "test_search_recipe",
        "the final population in another order",
    ),
    Mutant(
        "train_search.py",
        'min(finite, key=lambda member: member["loss"])',
        'max(finite, key=lambda member: member["loss"])',
        "test_search_steps",
        "the worst of the population found",
    ),
    Mutant(
        "train_search.py",
        'min(finite, key=lambda member: member["loss"])',
        'max(finite, key=lambda member: member["accuracy"])',
        "test_search_steps",
        "the most accurate found, not the one of lowest loss",
    ),
    Mutant(
        "slow_fast_learning.py",
        "np.zeros_like(self.positions)",
        "np.ones_like(self.positions)",
        "test_search_recipe",
        "velocities do not start at zero",
    ),
    Mutant(
        "slow_fast_learning.py",
        "r1, r2 = self.random.random((2, len(self.lower)))",
        "r1 = r2 = self.random.random(len(self.lower))",
        "test_slow_fast_learning",
        "r1 and r2 the same number",
    ),
    Mutant(
        "slow_fast_learning.py",
        "r1, r2 = self.random.random((2, len(self.lower)))",
        "r1, r2 = self.random.random(2)",
        "test_slow_fast_learning",
        "one r1 and r2 for all variables",
    ),
    Mutant(
        "slow_fast_learning.py",
        "r1, r2 = self.random",
        "r2, r1 = self.random",
        "test_slow_fast_learning",
        "r1 and r2 swapped",
    ),
    Mutant(
        "slow_fast_learning.py",
        "self.positions[fast] - self.positions[slow]",
        "self.positions[slow] - self.positions[fast]",
        "test_slow_fast_learning",
        "away from the fast learner",
    ),
    Mutant(
        "slow_fast_learning.py",
        "r1 * self.velocities[slow] + r2",
        "r2",
        "test_slow_fast_learning",
        "the velocity forgotten",
    ),
    Mutant(
        "slow_fast_learning.py",
        (
            "        self.positions[slow] = np.clip(\n"
            "            self.positions[slow] + self.velocities[slow], self.lower, self.upper\n"
            "        )"
        ),
        "        self.positions[slow] += self.velocities[slow]",
        "test_slow_fast_learning",
        "vectors leave their bounds",
    ),
    Mutant(
        "slow_fast_learning.py",
        "order = self.random.permutation(len(self.positions)).tolist()",
        "order = list(range(len(self.positions)))",
        "test_search_recipe",
        "members not paired at random",
    ),
    Mutant(
        "slow_fast_learning.py",
        "self.random.uniform(self.lower, self.upper, (population_size",
        "self.random.normal(self.upper / 2, 1, (population_size",
        "test_search_recipe",
        "vectors do not start uniformly in the box",
    ),
    Mutant(
        "slow_fast_learning.py",
        "(loss if math.isfinite(loss) else math.inf for loss in losses)",
        "losses",
        "test_slow_fast_learning",
        "a loss that is not finite may win",
    ),
    Mutant(
        "slow_fast_learning.py",
        "if first == second == math.inf:",
        "if False:",
        "test_slow_fast_learning",
        "of two losses that are not finite one wins",
    ),
    Mutant(
        "slow_fast_learning.py",
        "if first <= second else",
        "if first > second else",
        "test_slow_fast_learning",
        "the higher loss is the fast learner's",
    ),
    Mutant(
        "slow_fast_learning.py",
        "if first <= second else",
        "if first < second else",
        "test_slow_fast_learning",
        "of equal losses the second wins",
    ),
    Mutant(
        "slow_fast_learning.py",
        "np.minimum(positions.astype(np.int64), upper.astype(np.int64) - 1)",
        "np.minimum(np.rint(positions).astype(np.int64), upper.astype(np.int64) - 1)",
        "test_slow_fast_learning",
        "variables rounded, not rounded down",
    ),
    Mutant(
        "slow_fast_learning.py",
        "np.minimum(positions.astype(np.int64), upper.astype(np.int64) - 1)",
        "positions.astype(np.int64) % upper.astype(np.int64)",
        "test_slow_fast_learning",
        "the upper bound means the first choice",
    ),
    Mutant(
        "slow_fast_learning.py",
        "for bound in (node + 2, len(PRIMITIVES))",
        "for bound in (node + 1, len(PRIMITIVES))",
        "test_slow_fast_learning",
        "a node cannot take the node before it",
    ),
    Mutant(
        "slow_fast_learning.py",
        "for bound in (node + 2, len(PRIMITIVES))",
        "for bound in (len(PRIMITIVES), node + 2)",
        "test_slow_fast_learning",
        "the operation's variable before the input's",
    ),
    Mutant(
        "slow_fast_learning.py",
        "for source, operation in zip(",
        "for operation, source in zip(",
        "test_slow_fast_learning",
        "inputs and operations swapped in decoding",
    ),
    Mutant(
        "slow_fast_learning.py",
        "Genotype(pairs[: 2 * NODES], concat, pairs[2 * NODES :], concat)",
        "Genotype(pairs[2 * NODES :], concat, pairs[: 2 * NODES], concat)",
        "test_slow_fast_learning",
        "normal and reduction cell swapped in decoding",
    ),
    Mutant(
        "slow_fast_learning.py",
        "concat = list(range(2, NODES + 2))",
        "concat = [NODES + 1]",
        "test_slow_fast_learning",
        "only the last node is the cell's output",
    ),
    Mutant(
        "slow_fast_learning.py",
        "learned = {**(slow or {}), **(fast or {})}",
        "learned = {**(fast or {}), **(slow or {})}",
        "test_model_search",
        "the slow network's weights go first",
    ),
    Mutant(
        "slow_fast_learning.py",
        "learned = {**(slow or {}), **(fast or {})}",
        "learned = fast or {}",
        "test_model_search",
        "what only the slow network learned is lost",
    ),
    Mutant(
        "slow_fast_learning.py",
        "np.linalg.norm(self.positions - self.positions.mean(axis=0), axis=1).mean()",
        "np.linalg.norm(self.positions - self.positions.mean(axis=0))",
        "test_slow_fast_learning",
        "the diversity is no mean",
    ),
    Mutant(
        "slow_fast_learning.py",
        '"velocities": self.velocities.tolist()',
        '"velocities": (0 * self.velocities).tolist()',
        "test_slow_fast_learning",
        "velocities lost on resume",
    ),
    Mutant(
        "slow_fast_learning.py",
        '        self.random.bit_generator.state = state["random"]\n',
        "",
        "test_slow_fast_learning",
        "random numbers begin anew on resume",
    ),
    Mutant(
        "model_search.py",
        "edges_before = node * (node + 3) // 2",
        "edges_before = node * (node + 1) // 2",
        "test_search_network",
        "nodes share candidate operations",
    ),
    Mutant(
        "model_search.py",
        "stride = 2 if reduction and source < 2 else 1",
        "stride = 2 if reduction else 1",
        "test_search_network",
        "a stride on earlier nodes of reduction cells",
    ),
    Mutant(
        "model_search.py",
        "stride = 2 if reduction and source < 2 else 1",
        "stride = 1",
        "test_search_network",
        "reduction cells keep the size",
    ),
    Mutant(
        "model_search.py",
        "            self.preprocess0: nn.Module = FactorizedReduce(C_prev_prev, C)",
        "            self.preprocess0: nn.Module = ReLUConvBN(C_prev_prev, C, 1, 2, 0)",
        "test_model_search",
        "no factorised reduction behind a reduction cell",
    ),
    Mutant(
        "model_search.py",
        " and not isinstance(operation, nn.Identity)",
        "",
        "test_search_network",
        "drop path on skip connections",
    ),
    Mutant(
        "model_search.py",
        "if self.training and drop_path_prob > 0",
        "if drop_path_prob > 0",
        "test_search_network",
        "drop path in eval mode",
    ),
    Mutant(
        "model_search.py",
        "                    term = drop_path(term, drop_path_prob)\n",
        "                    pass\n",
        "test_search_network",
        "drop path does nothing",
    ),
    Mutant(
        "model_search.py",
        "states.append(terms[0] + terms[1])",
        "states.append((terms[0] + terms[1]) / 2)",
        "test_model_search",
        "a node is the mean of its operations, not their sum",
    ),
    Mutant(
        "model_search.py",
        "torch.cat(states[2:], dim=1)",
        "torch.cat(states[:-2], dim=1)",
        "test_model_search",
        "the cell's inputs concatenated",
    ),
    Mutant(
        "model_search.py", "C_stem = 3 * C", "C_stem = 4 * C", "test_search_network", "another stem"
    ),
    Mutant(
        "model_search.py",
        "index in (layers // 3, 2 * layers // 3)",
        "index in (layers // 3, 2 * layers // 3 + 1)",
        "test_search_network",
        "another place of the second reduction cell",
    ),
    Mutant(
        "model_search.py",
        "                C_curr *= 2\n",
        "                pass\n",
        "test_search_network",
        "channels not doubled in reduction cells",
    ),
    Mutant(
        "model_search.py",
        "            reduction_prev = reduction\n",
        "",
        "test_model_search",
        "no reduction of the input before last",
    ),
    Mutant(
        "model_search.py",
        "genotype.reduce if cell.reduction else genotype.normal",
        "genotype.normal if cell.reduction else genotype.reduce",
        "test_search_network",
        "normal and reduction cells swapped",
    ),
    Mutant(
        "model_search.py",
        "s0, s1 = s1, cell(",
        "s1 = cell(",
        "test_model_search",
        "cells do not see the cell before last",
    ),
    Mutant(
        "model_search.py",
        "active, self.drop_path_prob, self.recompute",
        "active, 0.0, self.recompute",
        "test_search_network",
        "the network's drop path does not reach its cells",
    ),
    Mutant(
        "model_search.py",
        "self.drop_path_prob = 0.0",
        "self.drop_path_prob = 0.3",
        "test_search_network",
        "drop path without being asked",
    ),
    Mutant(
        "model_search.py",
        '{"stem": self.stem, "classifier": self.classifier}',
        '{"stem": self.stem}',
        "test_candidate",
        "the classifier is not trained",
    ),
    Mutant(
        "model_search.py",
        '            modules[f"cells.{number}.preprocess0"] = cell.preprocess0\n',
        "",
        "test_candidate",
        "preprocessing is not trained",
    ),
    Mutant(
        "model_search.py",
        "recompute and self.training",
        "False",
        "test_model_search",
        "--save_memory does nothing",
    ),
    Mutant(
        "operations.py",
        "return x * mask.div_(keep)",
        "return x * mask",
        "test_search_network",
        "drop path not scaled",
    ),
    Mutant(
        "operations.py",
        "keep = 1.0 - probability",
        "keep = probability",
        "test_search_network",
        "drop path keeps what it should drop",
    ),
    Mutant(
        "operations.py",
        "torch.empty(x.shape[0], 1, 1, 1,",
        "torch.empty(1, 1, 1, 1,",
        "test_search_network",
        "drop path for the whole batch at once",
    ),
    Mutant(
        "operations.py",
        "torch.empty(x.shape[0], 1, 1, 1,",
        "torch.empty(x.shape[0], x.shape[1], 1, 1,",
        "test_search_network",
        "drop path for single channels",
    ),
    Mutant(
        "memory.py",
        "(nullcontext(), _frozen_statistics(module))",
        "(nullcontext(), nullcontext())",
        "test_model_search",
        "recomputing counts a batch twice in batch norm",
    ),
    Mutant(
        "memory.py",
        "norm.momentum, norm.num_batches_tracked = 0.0, None",
        "norm.momentum = 0.0",
        "test_model_search",
        "recomputing counts a batch twice",
    ),
    Mutant(
        "learners.py",
        "strata = self._shuffled(np.tile(np.arange(population_size)[:, None], len(self.lower)))",
        "strata = np.tile(np.arange(population_size)[:, None], len(self.lower))",
        "test_learners",
        "the hypercube's variables go together",
    ),
    Mutant(
        "learners.py",
        "places = (strata + self.random.random(shape)) / population_size",
        "places = self.random.random(shape)",
        "test_learners",
        "the first vectors are no hypercube",
    ),
    Mutant(
        "learners.py",
        "self.positions[slow] = self.positions[fast]",
        "self.positions[fast] = self.positions[slow]",
        "test_learners",
        "the fast learner takes over the slow one's values",
    ),
    Mutant(
        "learners.py",
        "        self.positions = self._shuffled(self.positions)\n",
        "",
        "test_learners",
        "values not dealt out anew",
    ),
    Mutant(
        "learners.py",
        "self.random.permuted(values, axis=0)",
        "self.random.permutation(values, axis=0)",
        "test_learners",
        "whole vectors are dealt out, not variable by variable",
    ),
    Mutant(
        "learners.py",
        "            self.asked.add(tuple(numbers))\n",
        "",
        "test_learners",
        "vectors are asked twice",
    ),
    Mutant(
        "learners.py",
        '"published": SlowFastLearning,',
        '"published": ShuffledLearning,',
        "test_search_recipe",
        "the published learner is another one",
    ),
    Mutant(
        "search_progress.py",
        "        self.pairs = []\n        self.pairs_done = 0\n\n\ndef",
        "        self.pairs_done = 0\n\n\ndef",
        "test_search_recipe",
        "pairs drawn once and kept",
    ),
    Mutant(
        "search_progress.py",
        "range(self.pairs_done, len(self.pairs), size)",
        "range(0, len(self.pairs), size)",
        "test_search_steps",
        "pairs done before are done again on resume",
    ),
    Mutant(
        "search_progress.py",
        'self.generation = state["generation"]',
        "self.generation = 0",
        "test_search_steps",
        "the generation begins at 0 on resume",
    ),
    Mutant(
        "search_progress.py",
        'self.pairs_done = state["pairs_done"]',
        "self.pairs_done = 0",
        "test_search_steps",
        "a generation begins again on resume",
    ),
    Mutant(
        "search_progress.py",
        'self.pairs = [tuple(pair) for pair in state["pairs"]]',
        "self.pairs = self.learning.draw_pairs()",
        "test_search_steps",
        "pairs drawn anew on resume",
    ),
    Mutant(
        "search_progress.py",
        "                self.weight_set[name].copy_(tensor)\n",
        "                pass\n",
        "test_search_steps",
        "the weight set not restored on resume",
    ),
    Mutant(
        "search_progress.py",
        '                "weight_set": self.weight_set,',
        ('                "weight_set": {n: 0 * t for n, t in self.weight_set.items()},'),
        "test_search_steps",
        "the checkpoint holds other weights",
    ),
    Mutant(
        "search_progress.py",
        "return self.generation == self.generations",
        "return self.generation + 1 == self.generations",
        "test_search_recipe",
        "the last generation left out",
    ),
    Mutant(
        "search_progress.py",
        '"slow": slow,',
        '"slow": pair[0],',
        "test_search_steps",
        "the history names another slow learner",
    ),
]

TRAINING = []

DATA = []

MUTANTS = [*SEARCH, *TRAINING, *DATA]


def outcome(mutant: Mutant, copy: Path) -> str:
    """Try a mutant in a copy of the project, and put the copy right again."""
    path = copy / mutant.file
    source = path.read_text()
    if source.count(mutant.stands) != 1 or mutant.stands == mutant.becomes:
        return "no longer applies"
    path.write_text(source.replace(mutant.stands, mutant.becomes))
    try:
        status = run_tests(mutant.tests, copy)
    except subprocess.TimeoutExpired:
        return "did not run (too slow)"
    finally:
        path.write_text(source)
    return {0: "survived", 1: "killed"}.get(status, f"did not run (pytest's status {status})")


def run_tests(tests: str, copy: Path) -> int:
    """The exit status of pytest for some test files in a copy of the project."""
    files = [f"tests/{name}.py" for name in tests.split()]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]
    # Without compiled files: a change within a second and of the same length would not be seen.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    finished = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, timeout=TIME_LIMIT
    )
    return finished.returncode


def make_copy(parent: Path) -> Path:
    """A copy of the project's files as they stand in the working tree."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    copy = Path(tempfile.mkdtemp(dir=parent))
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


def outcomes(mutants: list[Mutant], parent: Path) -> Iterator[str]:
    """The outcomes in the mutants' order, tried side by side, one for each core."""
    cores = len(os.sched_getaffinity(0))
    copies: Queue[Path] = Queue()
    for _ in range(cores):
        copies.put(make_copy(parent))

    def try_one(mutant: Mutant) -> str:
        copy = copies.get()
        try:
            return outcome(mutant, copy)
        finally:
            copies.put(copy)

    with ThreadPoolExecutor(cores) as pool:
        yield from pool.map(try_one, mutants)


def main(words: list[str]) -> int:
    chosen = [
        mutant
        for mutant in MUTANTS
        if not words or any(word in mutant.file + " " + mutant.why for word in words)
    ]
    alive = []
    with tempfile.TemporaryDirectory() as parent:
        tests = " ".join(sorted({name for mutant in chosen for name in mutant.tests.split()}))
        if chosen and run_tests(tests, make_copy(Path(parent))) != 0:
            print(f"the tests fail without any mutant: {tests}")
            return 1
        for mutant, result in zip(chosen, outcomes(chosen, Path(parent)), strict=True):
            print(f"{result:18} {mutant.file}: {mutant.why}", flush=True)
            if result != "killed":
                alive.append(mutant)
    print(f"{len(chosen)} mutants, {len(chosen) - len(alive)} killed")
    return 1 if alive or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
