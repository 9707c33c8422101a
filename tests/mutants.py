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


SEARCH = []

TRAINING = [
    Mutant(
        "engine.py",
        "            weight_decay=args.weight_decay,\n",
        "",
        "test_training_recipe",
        "no weight decay in training from scratch",
    ),
    Mutant(
        "engine.py",
        "            args.momentum,\n",
        "            0.0,\n",
        "test_training_recipe",
        "no momentum in training from scratch",
    ),
    Mutant(
        "engine.py",
        "            args.momentum,\n            weight_decay",
        "            args.momentum,\n            nesterov=True,\n            weight_decay",
        "test_training_recipe",
        "Nesterov's momentum",
    ),
    Mutant(
        "engine.py",
        "        clip_gradients(self.network.parameters(), self.args.grad_clip)\n",
        "",
        "test_training_recipe",
        "gradients not clipped in training from scratch",
    ),
    Mutant(
        "engine.py",
        "clip_gradients(self.network.parameters(), ",
        "clip_gradients(list(self.network.parameters())[:9], ",
        "test_training_recipe",
        "only some of the gradients clipped",
    ),
    Mutant(
        "engine.py",
        "        self.optimizer.zero_grad()\n",
        "",
        "test_training_recipe",
        "gradients of all steps pile up",
    ),
    Mutant(
        "engine.py",
        "total = loss + self.args.auxiliary_weight * loss_aux",
        "total = loss + loss_aux",
        "test_training_recipe",
        "the auxiliary head's weight ignored",
    ),
    Mutant(
        "engine.py",
        "total = loss + self.args.auxiliary_weight * loss_aux",
        "total = self.args.auxiliary_weight * loss + loss_aux",
        "test_training_recipe",
        "the auxiliary head's weight on the main loss",
    ),
    Mutant(
        "engine.py",
        "        total.backward()",
        "        loss.backward()",
        "test_training_recipe",
        "the auxiliary head is not trained",
    ),
    Mutant(
        "engine.py",
        "F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)",
        "F.cross_entropy(logits, labels)",
        "test_training_recipe",
        "labels of the main head not smoothed",
    ),
    Mutant(
        "engine.py",
        "loss_aux = F.cross_entropy(logits_aux, labels, label_smoothing=self.label_smoothing)",
        "loss_aux = F.cross_entropy(logits_aux, labels)",
        "test_training_recipe",
        "labels of the auxiliary head not smoothed",
    ),
    Mutant(
        "engine.py",
        "return total.detach(), loss.detach(), logits.detach()",
        "return total.detach(), total.detach(), logits.detach()",
        "test_training_recipe",
        "the training loss reported has the auxiliary head's in it",
    ),
    Mutant(
        "engine.py",
        '            group["lr"] = learning_rate\n',
        '            group["lr"] = self.args.learning_rate\n',
        "test_training_recipe",
        "an epoch's learning rate never reaches the optimizer",
    ),
    Mutant(
        "engine.py",
        "trainer.train_epoch(epoch, learning_rate(epoch), so_far)",
        "trainer.train_epoch(epoch, learning_rate(epoch + 1), so_far)",
        "test_training_recipe",
        "an epoch trains at the next one's learning rate",
    ),
    Mutant(
        "engine.py",
        "network.drop_path_prob = args.drop_path_prob * epoch / args.epochs",
        "network.drop_path_prob = args.drop_path_prob",
        "test_training_recipe",
        "drop path does not rise with the epochs",
    ),
    Mutant(
        "engine.py",
        "args.drop_path_prob * epoch / args.epochs",
        "args.drop_path_prob * (epoch + 1) / args.epochs",
        "test_training_recipe",
        "drop path of the next epoch",
    ),
    Mutant(
        "engine.py",
        "args.drop_path_prob * epoch / args.epochs",
        "args.drop_path_prob * epoch / max(1, args.epochs - 1)",
        "test_training_recipe",
        "drop path reaches its end in the last epoch",
    ),
    Mutant(
        "engine.py",
        "        network.drop_path_prob = args.drop_path_prob * epoch / args.epochs\n",
        "",
        "test_training_recipe",
        "no drop path in training from scratch",
    ),
    Mutant(
        "engine.py",
        "        self.network.train()\n",
        "",
        "test_training_recipe",
        "epochs after a validation train in eval mode",
    ),
    Mutant(
        "engine.py",
        "    network.eval()\n    if confusion",
        "    if confusion",
        "test_evaluation_recipe",
        "evaluation in the mode that the network is in",
    ),
    Mutant(
        "engine.py",
        "        with autocast(images.device, self.precision):\n            logits, logits_aux",
        "        with autocast(images.device, torch.float32):\n            logits, logits_aux",
        "test_training_recipe",
        "--precision ignored in training",
    ),
    Mutant(
        "engine.py",
        "self.precision = choose_precision(args.precision, processes.device)",
        'self.precision = choose_precision("fp32", processes.device)',
        "test_training_recipe",
        "--precision bf16 never chosen",
    ),
    Mutant(
        "engine.py",
        "            with autocast(images.device, precision):\n                logits, _",
        "            with autocast(images.device, torch.float32):\n                logits, _",
        "test_training_recipe",
        "--precision ignored in evaluation",
    ),
    Mutant(
        "engine.py",
        "network, data.validation_batches(), processes, trainer.precision, confusion",
        "network, data.validation_batches(), processes, torch.float32, confusion",
        "test_training_recipe",
        "--precision does not reach the validation of an epoch",
    ),
    Mutant(
        "engine.py",
        "derive_seed(self.args.seed, epoch, self.processes.rank, step)",
        "derive_seed(self.args.seed, epoch, step)",
        "test_training_recipe",
        "the same drop path in all processes",
    ),
    Mutant(
        "engine.py",
        "derive_seed(self.args.seed, epoch, self.processes.rank, step)",
        "derive_seed(self.args.seed, self.processes.rank, step)",
        "test_training_recipe",
        "the same drop path in all epochs",
    ),
    Mutant(
        "engine.py",
        "derive_seed(self.args.seed, epoch, self.processes.rank, step)",
        "derive_seed(self.args.seed, epoch, self.processes.rank)",
        "test_training_recipe",
        "the same drop path in all steps",
    ),
    Mutant(
        "engine.py",
        "derive_seed(self.args.seed, epoch, self.processes.rank, step)",
        "derive_seed(epoch, self.processes.rank, step)",
        "test_training_recipe",
        "the same drop path whatever --seed says",
    ),
    Mutant(
        "engine.py",
        "torch.manual_seed(derive_seed(self.args.seed, epoch, self.processes.rank, step))",
        "pass",
        "test_training_recipe",
        "drop path never seeded",
    ),
    Mutant(
        "engine.py",
        "    torch.manual_seed(args.seed)\n    network",
        "    network",
        "test_training_recipe",
        "initial weights that do not depend on --seed",
    ),
    Mutant(
        "engine.py",
        "self.data.training_batches(epoch, so_far.step), name",
        "self.data.training_batches(0, so_far.step), name",
        "test_training_recipe",
        "the same batches in all epochs of a training",
    ),
    Mutant(
        "engine.py",
        "enumerate(batches, start=so_far.step + 1)",
        "enumerate(batches, start=1)",
        "test_training_recipe",
        "an epoch taken up again counts its steps from the start",
    ),
    Mutant(
        "engine.py",
        "            meter.update(loss, logits, labels)\n            so_far",
        "            meter.update(total, logits, labels)\n            so_far",
        "test_training_recipe",
        "the training loss of a meter has the auxiliary head's in it",
    ),
    Mutant(
        "engine.py",
        "F.cross_entropy(logits, labels)\n",
        "F.cross_entropy(logits, labels, label_smoothing=0.1)\n",
        "test_evaluation_recipe",
        "labels smoothed in evaluation",
    ),
    Mutant(
        "engine.py",
        "        confusion.zero_()\n",
        "        pass\n",
        "test_evaluation_recipe",
        "counts of a confusion matrix pile up from epoch to epoch",
    ),
    Mutant(
        "engine.py",
        "labels * len(confusion) + predicted",
        "predicted * len(confusion) + labels",
        "test_evaluation_recipe",
        "confusion matrix transposed",
    ),
    Mutant(
        "engine.py",
        "    processes.share_buffers(network)\n",
        "",
        "test_training_processes",
        "batch norm's statistics not shared before validation",
    ),
    Mutant(
        "engine.py",
        "        processes.sum(confusion)\n",
        "        pass\n",
        "test_training_processes",
        "a confusion matrix of the main process's images only",
    ),
    Mutant(
        "engine.py",
        "total.sums = processes.sum(meter.sums.clone())",
        "total.sums = meter.sums.clone()",
        "test_training_processes",
        "results of the main process's images only",
    ),
    Mutant(
        "engine.py",
        "        if processes.size > 1:\n            # Static",
        "        if processes.size > 2:\n            # Static",
        "test_training_processes",
        "two processes train networks of their own",
    ),
    Mutant(
        "engine.py",
        'validation["top1"] > best_top1',
        'validation["top1"] >= best_top1',
        "test_evaluation_recipe",
        "the last of equally good epochs is the best",
    ),
    Mutant(
        "engine.py",
        'validation["top1"] > best_top1',
        'train["top1"] > best_top1',
        "test_evaluation_recipe",
        "the best checkpoint chosen by its training accuracy",
    ),
    Mutant(
        "engine.py",
        "        if is_best:\n",
        "        if True:\n",
        "test_evaluation_recipe",
        "the best checkpoint is the last",
    ),
    Mutant(
        "engine.py",
        'max(best_top1, validation["top1"])',
        'validation["top1"]',
        "test_evaluation_recipe",
        "the best checkpoint is better than the epoch before only",
    ),
    Mutant(
        "utils.py",
        "logits.topk(min(5,",
        "logits.topk(min(4,",
        "test_evaluation_recipe",
        "top-5 counted as top-4",
    ),
    Mutant(
        "utils.py",
        "logits.topk(min(5, logits.shape[1]), dim=1)",
        "logits.topk(min(5, logits.shape[1] - 1), dim=1)",
        "test_evaluation_recipe",
        "top-5 of five classes or fewer leaves one out",
    ),
    Mutant(
        "utils.py",
        "torch.stack([loss * len(labels), ",
        "torch.stack([loss, ",
        "test_evaluation_recipe",
        "losses of batches not weighted by their images",
    ),
    Mutant(
        "utils.py",
        "top5[:, 0].sum(), top5.sum(), count",
        "top5.sum(), top5[:, 0].sum(), count",
        "test_evaluation_recipe",
        "top-1 and top-5 swapped",
    ),
    Mutant(
        "utils.py",
        '        if not name.startswith("auxiliary_head.")\n',
        "",
        "test_evaluation_recipe",
        "the auxiliary head counted among the parameters",
    ),
    Mutant(
        "utils.py",
        "return counter.get_total_flops() // 2",
        "return counter.get_total_flops()",
        "test_model",
        "multiplications and additions counted each",
    ),
    Mutant(
        "utils.py",
        'return torch.bfloat16 if precision == "bf16" else torch.float32\n\n\ndef autocast',
        "return torch.float32\n\n\ndef autocast",
        "test_training_recipe",
        "bf16 is fp32",
    ),
    Mutant(
        "utils.py",
        "enabled=dtype != torch.float32",
        "enabled=dtype == torch.float32",
        "test_training_recipe",
        "autocast the other way round",
    ),
    Mutant(
        "utils.py",
        "    if largest_norm > 0:\n",
        "    if largest_norm > 1:\n",
        "test_training_recipe",
        "gradients not clipped to small norms",
    ),
    Mutant(
        "utils.py",
        "nn.utils.clip_grad_norm_(parameters, largest_norm)",
        "nn.utils.clip_grad_value_(parameters, largest_norm)",
        "test_training_recipe",
        "gradients clipped one by one and not by their norm",
    ),
    Mutant(
        "utils.py",
        "nn.utils.clip_grad_norm_(parameters, largest_norm)",
        'nn.utils.clip_grad_norm_(parameters, largest_norm, norm_type=float("inf"))',
        "test_training_recipe",
        "gradients clipped by their largest number",
    ),
    Mutant(
        "train.py",
        "math.cos(math.pi * epoch / args.epochs)) / 2",
        "math.cos(math.pi * (epoch + 1) / args.epochs)) / 2",
        "test_training_recipe",
        "CIFAR's learning rate of the next epoch",
    ),
    Mutant(
        "train.py",
        "math.pi * epoch / args.epochs",
        "math.pi * epoch / max(1, args.epochs - 1)",
        "test_training_recipe",
        "CIFAR's learning rate reaches 0 in the last epoch",
    ),
    Mutant(
        "train.py",
        "return args.learning_rate * (1 + math.cos(math.pi * epoch / args.epochs)) / 2",
        "return args.learning_rate",
        "test_training_recipe",
        "CIFAR's learning rate stays",
    ),
    Mutant(
        "train.py",
        "derive_seed(args.seed, epoch),\n            processes.device",
        "derive_seed(args.seed),\n            processes.device",
        "test_training_recipe",
        "the same order and augmentation in all epochs on CIFAR",
    ),
    Mutant(
        "train.py",
        "derive_seed(args.seed, epoch),\n            processes.device",
        "derive_seed(epoch),\n            processes.device",
        "test_training_recipe",
        "the same order and augmentation whatever --seed says",
    ),
    Mutant(
        "train.py",
        "processes.device, processes.rank, processes.size, first_step,",
        "processes.device, 0, processes.size, first_step,",
        "test_training_recipe",
        "all processes train on the same part of a batch on CIFAR",
    ),
    Mutant(
        "train.py",
        "processes.device, processes.rank, processes.size, first_step,",
        "processes.device, processes.rank, processes.size,",
        "test_training_recipe",
        "a resumed epoch begins again on CIFAR",
    ),
    Mutant(
        "train.py",
        "test_set, args.batch_size, statistics, processes.device, processes.rank, processes.size",
        "test_set, args.batch_size, statistics, processes.device",
        "test_training_recipe",
        "all processes validate on all images on CIFAR",
    ),
    Mutant(
        "train.py",
        "            test_set, args.batch_size, statistics",
        "            train_set, args.batch_size, statistics",
        "test_training_recipe",
        "validated on the training images on CIFAR",
    ),
    Mutant(
        "train.py",
        "init_channels=36",
        "init_channels=32",
        "test_training_recipe",
        "another number of channels on CIFAR",
    ),
    Mutant(
        "train.py",
        "drop_path_prob=0.3",
        "drop_path_prob=0.2",
        "test_training_recipe",
        "another drop path on CIFAR",
    ),
    Mutant(
        "train.py",
        "epochs=600",
        "epochs=500",
        "test_training_recipe",
        "another number of epochs on CIFAR",
    ),
    Mutant(
        "train.py",
        "learning_rate=0.025",
        "learning_rate=0.05",
        "test_training_recipe",
        "another learning rate on CIFAR",
    ),
    Mutant(
        "train.py",
        "weight_decay=3e-4",
        "weight_decay=3e-5",
        "test_training_recipe",
        "ImageNet's weight decay on CIFAR",
    ),
    Mutant(
        "engine.py",
        "        default=0.4,\n",
        "        default=0.5,\n",
        "test_training_recipe",
        "another weight of the auxiliary head",
    ),
    Mutant(
        "engine.py",
        'type=non_negative_float, default=0.9, help="of SGD"',
        'type=non_negative_float, default=0.99, help="of SGD"',
        "test_training_recipe",
        "another momentum",
    ),
    Mutant(
        "engine.py",
        '"--auxiliary", action=BooleanOptionalAction, default=True',
        '"--auxiliary", action=BooleanOptionalAction, default=False',
        "test_training_recipe",
        "no auxiliary head unless asked for",
    ),
    Mutant(
        "train_imagenet.py",
        "return highest * (epoch + 1) / warmup_epochs",
        "return highest * epoch / warmup_epochs",
        "test_training_recipe",
        "ImageNet's warm-up begins at 0",
    ),
    Mutant(
        "train_imagenet.py",
        "return highest * (main_epochs - epoch) / main_epochs",
        "return highest * (main_epochs - epoch - 1) / main_epochs",
        "test_training_recipe",
        "ImageNet's learning rate of the next epoch",
    ),
    Mutant(
        "train_imagenet.py",
        "return highest * (main_epochs - epoch) / main_epochs",
        "return highest * (epochs - epoch) / epochs",
        "test_training_recipe",
        "ImageNet's learning rate falls over all epochs",
    ),
    Mutant(
        "train_imagenet.py",
        "return highest * (epochs - epoch) / (main_epochs * final_epochs)",
        "return highest * (epochs - epoch - 1) / (main_epochs * final_epochs)",
        "test_training_recipe",
        "ImageNet's last epochs' learning rate ends at 0",
    ),
    Mutant(
        "train_imagenet.py",
        "    if epoch < warmup_epochs:",
        "    if epoch <= warmup_epochs:",
        "test_training_recipe",
        "ImageNet's warm-up takes an epoch more",
    ),
    Mutant(
        "train_imagenet.py",
        "    if epoch < main_epochs:",
        "    if epoch <= main_epochs:",
        "test_training_recipe",
        "ImageNet's last epochs begin one later",
    ),
    Mutant(
        "train_imagenet.py",
        "        args.label_smoothing,\n    )",
        "    )",
        "test_training_recipe",
        "labels not smoothed on ImageNet",
    ),
    Mutant(
        "train_imagenet.py",
        'default=0.1, help="of both',
        'default=0.0, help="of both',
        "test_training_recipe",
        "labels not smoothed unless asked for",
    ),
    Mutant(
        "train_imagenet.py",
        "derive_seed(args.seed, epoch), first_step",
        "derive_seed(args.seed), first_step",
        "test_training_recipe",
        "the same order and augmentation in all epochs on ImageNet",
    ),
    Mutant(
        "train_imagenet.py",
        "derive_seed(args.seed, epoch), first_step",
        "derive_seed(args.seed, epoch)",
        "test_training_recipe",
        "a resumed epoch begins again on ImageNet",
    ),
    Mutant(
        "train_imagenet.py",
        "layers=14",
        "layers=15",
        "test_training_recipe",
        "another number of cells on ImageNet",
    ),
    Mutant(
        "train_imagenet.py",
        "drop_path_prob=0.0",
        "drop_path_prob=0.2",
        "test_training_recipe",
        "drop path on ImageNet",
    ),
    Mutant(
        "train_imagenet.py",
        "weight_decay=3e-5",
        "weight_decay=3e-4",
        "test_training_recipe",
        "CIFAR's weight decay on ImageNet",
    ),
    Mutant(
        "train_imagenet.py",
        "batch_size=1024",
        "batch_size=512",
        "test_training_recipe",
        "another batch size on ImageNet",
    ),
    Mutant(
        "train_imagenet.py",
        'default=5,\n        help="epochs of the learning',
        'default=3,\n        help="epochs of the learning',
        "test_training_recipe",
        "another number of warm-up epochs",
    ),
    Mutant(
        "train_imagenet.py",
        '        "imagenet",\n        run_genotype',
        '        "cifar",\n        run_genotype',
        "test_training_recipe",
        "CIFAR's network on ImageNet",
    ),
    Mutant(
        "test.py",
        "        choose_precision(args.precision, device),\n",
        "        torch.float32,\n",
        "test_evaluation_recipe",
        "--precision of test.py ignored",
    ),
    Mutant(
        "test.py",
        "    print(f\"error rate      {100 - result['top1']:.2f} %\")",
        "    print(f\"error rate      {100 - result['top5']:.2f} %\")",
        "test_evaluation_recipe",
        "test.py prints the top-5 error",
    ),
    Mutant(
        "test.py",
        "        statistics = statistics_from_dict(description)\n",
        '        statistics = PUBLISHED_STATISTICS["cifar10"]\n',
        "test_evaluation_recipe",
        "test.py normalises by another set's mean and deviation",
    ),
    Mutant(
        "test_imagenet.py",
        "        choose_precision(args.precision, processes.device),\n",
        "        torch.float32,\n",
        "test_evaluation_recipe",
        "--precision of test_imagenet.py ignored",
    ),
    Mutant(
        "test_imagenet.py",
        "        statistics = statistics_from_dict(description)\n",
        "        pass\n",
        "test_evaluation_recipe",
        "test_imagenet.py ignores the checkpoint's mean and deviation",
    ),
    Mutant(
        "model.py",
        "self.training and drop_path_prob > 0",
        "drop_path_prob > 0",
        "test_network_recipe",
        "drop path in eval mode",
    ),
    Mutant(
        "model.py",
        " and not isinstance(operation, nn.Identity)",
        "",
        "test_network_recipe",
        "drop path on skip connections",
    ),
    Mutant(
        "model.py",
        "not isinstance(operation, nn.Identity)",
        "not isinstance(operation, nn.Identity | FactorizedReduce)",
        "test_network_recipe",
        "no drop path on skip connections that reduce",
    ),
    Mutant(
        "operations.py",
        "    return x * mask.div_(keep)",
        "    return x * mask",
        "test_network_recipe",
        "drop path not scaled up",
    ),
    Mutant(
        "operations.py",
        "mask = torch.empty(x.shape[0], 1, 1, 1,",
        "mask = torch.empty(x.shape[0], x.shape[1], 1, 1,",
        "test_network_recipe",
        "drop path by channels",
    ),
    Mutant(
        "operations.py",
        ".bernoulli_(keep)",
        ".bernoulli_(probability)",
        "test_network_recipe",
        "drop path keeps what it should drop",
    ),
    Mutant(
        "model.py",
        "cell(s0, s1, self.drop_path_prob)\n            if",
        "cell(s0, s1, 0.0)\n            if",
        "test_network_recipe",
        "drop path never reaches the cells",
    ),
    Mutant(
        "model.py",
        "reduction = index in (self._layers // 3, 2 * self._layers // 3)",
        "reduction = index in (self._layers // 3, self._layers // 3 * 2)",
        "test_network_recipe",
        "the second reduction cell elsewhere",
    ),
    Mutant(
        "model.py",
        "if index == 2 * self._layers // 3 and self._auxiliary and self.training",
        "if index == 2 * self._layers // 3 + 1 and self._auxiliary and self.training",
        "test_network_recipe",
        "the auxiliary head a cell later",
    ),
    Mutant(
        "model.py",
        "                C_curr *= 2\n",
        "                pass\n",
        "test_network_recipe",
        "reduction cells without twice the channels",
    ),
    Mutant(
        "model.py",
        "s0, s1 = s1, cell(s0, s1, self.drop_path_prob)\n            if",
        "s0, s1 = s0, cell(s0, s1, self.drop_path_prob)\n            if",
        "test_model",
        "cells that see the stem for ever",
    ),
    Mutant(
        "model.py",
        "2 if reduction and source < 2 else 1",
        "2 if reduction and source < 1 else 1",
        "test_network_recipe",
        "operations on the last cell's output do not reduce",
    ),
    Mutant(
        "model.py",
        "pairs = genotype.reduce if reduction else genotype.normal\n",
        "pairs = genotype.normal\n",
        "test_model",
        "the normal cell's operations in reduction cells",
    ),
    Mutant(
        "model.py",
        "    auxiliary_pool_stride = 3\n",
        "    auxiliary_pool_stride = 2\n",
        "test_network_recipe",
        "another stride of the auxiliary head's pool on CIFAR",
    ),
    Mutant(
        "model.py",
        "    auxiliary_pool_stride = 2\n",
        "    auxiliary_pool_stride = 3\n",
        "test_network_recipe",
        "another stride of the auxiliary head's pool on ImageNet",
    ),
    Mutant(
        "model.py",
        "    auxiliary_last_batch_norm = False",
        "    auxiliary_last_batch_norm = True",
        "test_network_recipe",
        "a last batch norm in ImageNet's auxiliary head",
    ),
    Mutant(
        "model.py",
        "    auxiliary_last_batch_norm = True",
        "    auxiliary_last_batch_norm = False",
        "test_network_recipe",
        "no last batch norm in CIFAR's auxiliary head",
    ),
    Mutant(
        "model.py",
        "            nn.ReLU(),\n            AuxiliaryPool",
        "            AuxiliaryPool",
        "test_network_recipe",
        "no ReLU before the auxiliary head",
    ),
    Mutant(
        "model.py",
        "        C_stem = 3 * C\n",
        "        C_stem = 2 * C\n",
        "test_model",
        "another number of channels in the stem",
    ),
    Mutant(
        "model.py",
        "            nn.ReLU(),\n            nn.Conv2d(C, C, 3, stride=2",
        "            nn.Identity(),\n            nn.Conv2d(C, C, 3, stride=2",
        "test_model",
        "no ReLU in ImageNet's second stem",
    ),
    Mutant(
        "model.py",
        "self._add_cells(genotype, C, C, reduction_prev=True)",
        "self._add_cells(genotype, C, C, reduction_prev=False)",
        "test_model",
        "ImageNet's first cell takes its inputs for one size",
    ),
    Mutant(
        "operations.py",
        "x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]",
        "x[:, :, ::2, ::2], x[:, :, ::2, ::2]",
        "test_network_recipe",
        "both halves of a FactorizedReduce see the same pixels",
    ),
    Mutant(
        "operations.py",
        "        x = F.relu(x)\n        # Every",
        "        # Every",
        "test_network_recipe",
        "no ReLU in a FactorizedReduce",
    ),
    Mutant(
        "operations.py",
        "count_include_pad=False",
        "count_include_pad=True",
        "test_network_recipe",
        "average pools count the padding",
    ),
    Mutant(
        "operations.py",
        "            *_depthwise_separable(C, kernel_size, 1),\n",
        "",
        "test_network_recipe",
        "separable convolutions applied once",
    ),
    Mutant(
        "operations.py",
        "stride, dilation=2))",
        "stride, dilation=1))",
        "test_network_recipe",
        "dilated convolutions without dilation",
    ),
    Mutant(
        "operations.py",
        "return nn.MaxPool2d(3,",
        "return nn.AvgPool2d(3,",
        "test_network_recipe",
        "max pools are average pools",
    ),
    Mutant(
        "depthwise.py",
        "weight.flip(2, 3), None, 1",
        "weight, None, 1",
        "test_depthwise",
        "input gradients of an unmirrored kernel",
    ),
    Mutant(
        "depthwise.py",
        "seen = padded[:, :, :, first : first + width",
        "seen = padded[:, :, :, : width",
        "test_depthwise",
        "every few columns' gradient from the first ones' pixels",
    ),
    Mutant(
        "depthwise.py",
        "ctx.subsampled = stride == dilation == 2",
        "ctx.subsampled = dilation == 2",
        "test_depthwise",
        "dilation without stride taken for one with it",
    ),
    Mutant(
        "distributed.py",
        "            for buffer in network.buffers():",
        "            for buffer in list(network.buffers())[:3]:",
        "test_training_processes",
        "only some of batch norm's statistics shared",
    ),
    Mutant(
        "distributed.py",
        "torch.distributed.broadcast(buffer, src=0)",
        "torch.distributed.broadcast(buffer, src=1)",
        "test_training_processes",
        "the last process's batch norm statistics",
    ),
    Mutant(
        "distributed.py",
        "            torch.distributed.all_reduce(tensor)\n",
        "            torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)\n",
        "test_training_processes",
        "the largest of the processes' results and not their sum",
    ),
    Mutant(
        "seeds.py",
        "(len(place), *place)",
        "(len(place), *place[:-1])",
        "test_seeds",
        "seeds that leave the last part of their place out",
    ),
    Mutant(
        "seeds.py",
        "SeedSequence((len(place), *place))",
        "SeedSequence(place)",
        "test_seeds",
        "a place and the same with a zero behind it share a seed",
    ),
    Mutant(
        "finite.py",
        "(self._first == 0) & ~number.isfinite()",
        "(self._first == 0) & number.isnan()",
        "test_numbers",
        "infinite losses go unseen",
    ),
    Mutant(
        "finite.py",
        "(self._first == 0) & ~number.isfinite()",
        "~number.isfinite()",
        "test_numbers",
        "not the first step whose loss was not finite",
    ),
    Mutant(
        "trained_network.py",
        '"imagenet": (46, 14)}',
        '"imagenet": (48, 14)}',
        "test_evaluation_recipe",
        "another size of ImageNet's published network",
    ),
    Mutant(
        "trained_network.py",
        '{"cifar": (36, 20),',
        '{"cifar": (32, 20),',
        "test_evaluation_recipe",
        "another size of CIFAR's published network",
    ),
    Mutant(
        "trained_network.py",
        "    return network.eval(), description",
        "    return network.train(), description",
        "test_evaluation_recipe",
        "a trained network comes in training mode",
    ),
    Mutant(
        "train.py",
        'load_image_set(args.set, args.data, "test", args.image_size)',
        'load_image_set(args.set, args.data, "train", args.image_size)',
        "test_training_recipe",
        "the training images taken for the test images on CIFAR",
    ),
    Mutant(
        "train_imagenet.py",
        'open_images(args.data_path, "val", ',
        'open_images(args.data_path, "train", ',
        "test_training_recipe",
        "validated on the training images on ImageNet",
    ),
    Mutant(
        "train.py",
        "image_size, args.cutout, args.cutout_length)",
        "image_size, False, args.cutout_length)",
        "test_training_recipe",
        "no cutout in training from scratch",
    ),
    Mutant(
        "train.py",
        "args.cutout, args.cutout_length)",
        "args.cutout)",
        "test_training_recipe",
        "--cutout_length ignored in training from scratch",
    ),
]

DATA = [
    Mutant(
        "dataset/augmentation.py",
        "    if augmentation.crop_padding:\n",
        "    if False:\n",
        "test_image_recipe",
        "no random crop",
    ),
    Mutant(
        "dataset/augmentation.py",
        "    if augmentation.flip:\n",
        "    if False:\n",
        "test_image_recipe",
        "images never mirrored",
    ),
    Mutant(
        "dataset/augmentation.py",
        "    if augmentation.cutout_length:\n",
        "    if False:\n",
        "test_image_recipe",
        "no cutout",
    ),
    Mutant(
        "dataset/augmentation.py",
        "    normalized = normalize(images, mean, std)\n"
        "    if augmentation.cutout_length:\n"
        "        normalized = cutout(normalized, augmentation.cutout_length, generator)\n"
        "    return normalized\n",
        "    if augmentation.cutout_length:\n"
        "        images = cutout(images, augmentation.cutout_length, generator)\n"
        "    return normalize(images, mean, std)\n",
        "test_image_recipe",
        "cutout before normalisation",
    ),
    Mutant(
        "dataset/augmentation.py",
        "padded = F.pad(images, [padding] * 4)",
        'padded = F.pad(images.float(), [padding] * 4, mode="reflect")',
        "test_image_recipe",
        "crops of mirrored borders",
    ),
    Mutant(
        "dataset/augmentation.py",
        "        2 * padding + 1, (2, count)",
        "        2 * padding, (2, count)",
        "test_image_recipe",
        "crop places leave out the last",
    ),
    Mutant(
        "dataset/augmentation.py",
        "        2 * padding + 1, (2, count), generator=generator, device=images.device\n    )",
        "        2 * padding + 1, (2, 1), generator=generator, device=images.device\n"
        "    ).expand(2, count)",
        "test_image_recipe",
        "one crop place for the whole batch",
    ),
    Mutant(
        "dataset/augmentation.py",
        "flipped = torch.rand(len(images), generator=generator, device=images.device) < 0.5",
        "flipped = torch.rand(len(images), generator=generator, device=images.device) < 0.25",
        "test_image_recipe",
        "mirrored with probability 1/4",
    ),
    Mutant(
        "dataset/augmentation.py",
        "flipped = torch.rand(len(images), generator=generator, device=images.device) < 0.5",
        "flipped = (torch.rand(1, generator=generator) < 0.5).expand(len(images))",
        "test_image_recipe",
        "one flip for the whole batch",
    ),
    Mutant(
        "dataset/augmentation.py",
        "images.flip(3), images)",
        "images.flip(2), images)",
        "test_image_recipe",
        "mirrored top to bottom",
    ),
    Mutant(
        "dataset/augmentation.py",
        "torch.where(square, 0.0, images)",
        "torch.where(square, 0.5, images)",
        "test_image_recipe",
        "cutout's value",
    ),
    Mutant(
        "dataset/augmentation.py",
        "centre = torch.randint(size, (count, 1)",
        "centre = torch.randint(length // 2, size - length // 2, (count, 1)",
        "test_image_recipe",
        "cutout squares only inside of the image",
    ),
    Mutant(
        "dataset/augmentation.py",
        "(offset >= -(length // 2))",
        "(offset > -(length // 2))",
        "test_image_recipe",
        "cutout's border",
    ),
    Mutant(
        "dataset/augmentation.py",
        "    images = images.to(memory_format=torch.channels_last)\n",
        "",
        "test_image_recipe",
        "batches not channels last",
    ),
    Mutant(
        "dataset/augmentation.py",
        "/ (255 * std).view(1, 3, 1, 1)",
        "/ (255 * std.square()).view(1, 3, 1, 1)",
        "test_image_recipe",
        "divided by the variance",
    ),
    Mutant(
        "dataset/augmentation.py",
        "(images - (255 * mean).view(1, 3, 1, 1))",
        "(images - (255 * mean.flip(0)).view(1, 3, 1, 1))",
        "test_image_recipe",
        "mean in the order blue, green, red",
    ),
    Mutant(
        "dataset/augmentation.py",
        "for step in order:",
        "for step in sorted(order):",
        "test_imagenet_recipe",
        "colours always changed in one order",
    ),
    Mutant(
        "dataset/augmentation.py",
        "mean = _grey(images).mean(dim=(2, 3), keepdim=True)",
        "mean = _grey(images).mean()",
        "test_imagenet_recipe",
        "contrast about the batch's mean",
    ),
    Mutant(
        "dataset/augmentation.py",
        "0.299 * red + 0.587 * green + 0.114 * blue",
        "(red + green + blue) / 3",
        "test_imagenet_recipe",
        "grey as the channels' mean",
    ),
    Mutant(
        "dataset/augmentation.py",
        "hue = hue + 6 * shift",
        "hue = hue + shift",
        "test_imagenet_recipe",
        "hue shifted by sixths of turns",
    ),
    Mutant(
        "dataset/image_set.py",
        "cutout_length = image_size // 2",
        "cutout_length = image_size // 4",
        "test_image_recipe",
        "cutout's length",
    ),
    Mutant(
        "dataset/image_set.py",
        "Augmentation(image_size // 8,",
        "Augmentation(image_size // 16,",
        "test_image_recipe",
        "crop padding 2 at 32",
    ),
    Mutant(
        "dataset/image_set.py",
        'name != "digits", cutout_length if',
        "True, cutout_length if",
        "test_image_recipe",
        "digits mirrored",
    ),
    Mutant(
        "dataset/image_set.py",
        'name != "digits", cutout_length if',
        'name == "cifar10", cutout_length if',
        "test_image_recipe",
        "CIFAR-100 not mirrored",
    ),
    Mutant(
        "dataset/image_set.py",
        "cutout_length if cutout else 0",
        "cutout_length",
        "test_image_recipe",
        "--no-cutout ignored",
    ),
    Mutant(
        "dataset/image_set.py",
        "generator.manual_seed(derive_seed(seed, rank, step))",
        "generator.manual_seed(derive_seed(seed, 0, step))",
        "test_image_recipe",
        "the same augmentation in all processes",
    ),
    Mutant(
        "dataset/image_set.py",
        "generator.manual_seed(derive_seed(seed, rank, step))",
        "generator.manual_seed(derive_seed(seed, rank, 0))",
        "test_image_recipe",
        "the same augmentation in each step",
    ),
    Mutant(
        "dataset/image_set.py",
        "enumerate(batches, start=first_step)",
        "enumerate(batches)",
        "test_image_recipe",
        "a resumed epoch augmented as its first steps",
    ),
    Mutant(
        "dataset/image_set.py",
        "torch.randperm(len(image_set), generator=shuffle, device=data_device)",
        "torch.arange(len(image_set))",
        "test_image_recipe",
        "training images not shuffled",
    ),
    Mutant(
        "dataset/image_set.py",
        "torch.randperm(len(image_set), generator=shuffle, device=data_device)",
        "torch.randint(len(image_set), (len(image_set),), generator=shuffle)",
        "test_image_recipe",
        "images drawn with replacement",
    ),
    Mutant(
        "dataset/image_set.py",
        "own = indices[rank::world_size]",
        "own = indices",
        "test_image_recipe",
        "all processes train on all images",
    ),
    Mutant(
        "dataset/image_set.py",
        "        if len(indices) < 2 * world_size:\n",
        "        if len(indices) < batch_size:\n",
        "test_image_recipe",
        "last batch left out",
    ),
    Mutant(
        "dataset/image_set.py",
        "+ (rest >= 2 * world_size)",
        "+ (rest > 0)",
        "test_image_recipe",
        "steps count a batch that is left out",
    ),
    Mutant(
        "dataset/image_set.py",
        "        yield normalize(images, mean, std), labels",
        "        yield augment(\n"
        "            images, Augmentation(4, True, 0), mean, std, Generator(device)\n"
        "        ), labels",
        "test_image_recipe",
        "validation images augmented",
    ),
    Mutant(
        "dataset/image_set.py",
        "own = torch.arange(rank, len(image_set), world_size,",
        "own = torch.arange(0, len(image_set), 1,",
        "test_image_recipe",
        "all processes validate on all images",
    ),
    Mutant(
        "dataset/image_set.py",
        "own = torch.arange(rank, len(image_set), world_size,",
        "own = torch.arange(rank, len(image_set) - 1, world_size,",
        "test_image_recipe",
        "a test image left out",
    ),
    Mutant(
        "dataset/image_set.py",
        'train = split == "train"',
        "train = True",
        "test_image_recipe",
        "CIFAR's training images tested on",
    ),
    Mutant(
        "dataset/image_set.py",
        "torch.from_numpy(dataset.data).permute(0, 3, 1, 2)",
        "torch.from_numpy(dataset.data).permute(0, 3, 2, 1)",
        "test_image_recipe",
        "CIFAR transposed",
    ),
    Mutant(
        "dataset/image_set.py",
        "images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2)",
        "images = torch.from_numpy(dataset.data).flip(3).permute(0, 3, 1, 2)",
        "test_image_recipe",
        "CIFAR in the order blue, green, red",
    ),
    Mutant(
        "dataset/image_set.py",
        "        return PUBLISHED_STATISTICS[name]\n    if kept",
        '        return PUBLISHED_STATISTICS["cifar10"]\n    if kept',
        "test_image_recipe",
        "CIFAR-100 normalised as CIFAR-10",
    ),
    Mutant(
        "dataset/image_set.py",
        "    if name in PUBLISHED_STATISTICS:\n",
        "    if False:\n",
        "test_image_recipe",
        "CIFAR's statistics measured, not the published",
    ),
    Mutant(
        "dataset/image_set.py",
        "    if kept is not None and kept.exists():\n",
        "    if False:\n",
        "test_image_recipe",
        "kept statistics not read",
    ),
    Mutant(
        "dataset/image_set.py",
        "(total_of_squares / count - mean.square()).clamp(min=1e-6).sqrt()",
        "(total_of_squares / count - mean.square()).clamp(min=1e-6)",
        "test_image_recipe",
        "variance for deviation",
    ),
    Mutant(
        "dataset/image_set.py",
        'size=(16, 16), mode="bilinear")',
        'size=(16, 16), mode="nearest")',
        "test_image_recipe",
        "digits enlarged by another filter",
    ),
    Mutant(
        "dataset/image_folder.py",
        "Image.Resampling.BILINEAR",
        "Image.Resampling.BICUBIC",
        "test_image_recipe",
        "another filter in folders",
    ),
    Mutant(
        "dataset/image_folder.py",
        "Image.Resampling.BILINEAR",
        "Image.Resampling.NEAREST",
        "test_image_recipe",
        "no filter in folders",
    ),
    Mutant(
        "dataset/image_folder.py",
        "ImageOps.fit(to_rgb(image), size, Image.Resampling.BILINEAR)",
        "to_rgb(image).resize(size, Image.Resampling.BILINEAR)",
        "test_image_recipe",
        "folder images squeezed, not cropped",
    ),
    Mutant(
        "dataset/image_folder.py",
        "    names = sorted(entry.name for entry in folder.iterdir() if _is_visible_folder(entry))",
        "    names = sorted(\n"
        "        (entry.name for entry in folder.iterdir() if _is_visible_folder(entry)),\n"
        "        key=lambda name: (folder / name).stat().st_mtime_ns,\n"
        "    )",
        "test_image_recipe",
        "labels in the order in which class folders were made",
    ),
    Mutant(
        "dataset/decoding.py",
        'return image.convert("RGB")',
        'return image.convert("RGBA").convert("RGBa").convert("RGBA").convert("RGB")',
        "test_image_recipe",
        "transparent pixels black",
    ),
    Mutant(
        "dataset/decoding.py",
        'return image.convert("RGB")',
        'return image.convert("L").convert("RGB")',
        "test_image_recipe",
        "all images grey",
    ),
    Mutant(
        "dataset/decoding.py",
        "        Image.Resampling.BILINEAR,\n",
        "        Image.Resampling.BICUBIC,\n",
        "test_imagenet_recipe",
        "another filter for crops",
    ),
    Mutant(
        "dataset/decoding.py",
        "        Image.Resampling.BILINEAR,\n",
        "        Image.Resampling.NEAREST,\n",
        "test_imagenet_recipe",
        "no filter for crops",
    ),
    Mutant(
        "dataset/decoding.py",
        "CROP_RATIO = (3 / 4, 4 / 3)",
        "CROP_RATIO = (1 / 2, 2)",
        "test_imagenet_recipe",
        "crops of another range of shapes",
    ),
    Mutant(
        "dataset/decoding.py",
        "ratio = math.exp(smallest + (largest - smallest) * ratio_draw)",
        "ratio = CROP_RATIO[0] + (CROP_RATIO[1] - CROP_RATIO[0]) * ratio_draw",
        "test_imagenet_recipe",
        "shapes of crops not uniform in the logarithm",
    ),
    Mutant(
        "dataset/decoding.py",
        "area = width * height * (scale[0] + (scale[1] - scale[0]) * area_draw)",
        "area = width * height * (scale[0] + (scale[1] - scale[0]) * area_draw) ** 2",
        "test_imagenet_recipe",
        "sides of crops uniform, not their area",
    ),
    Mutant(
        "dataset/decoding.py",
        "            left = int(left_draw * (width - crop_width + 1))\n"
        "            top = int(top_draw * (height - crop_height + 1))\n",
        "            left = (width - crop_width) // 2\n"
        "            top = (height - crop_height) // 2\n",
        "test_imagenet_recipe",
        "training crops from the middle",
    ),
    Mutant(
        "dataset/decoding.py",
        "int(left_draw * (width - crop_width + 1))",
        "int(left_draw * (width - crop_width))",
        "test_imagenet_recipe",
        "crops never at the right border",
    ),
    Mutant(
        "dataset/decoding.py",
        "crop_width = min(width, round(height * CROP_RATIO[1]))",
        "crop_width = min(width, height)",
        "test_imagenet_recipe",
        "a square where no crop fits",
    ),
    Mutant(
        "dataset/decoding.py",
        "return Box((width - crop_width) // 2, (height - crop_height) // 2, crop_width",
        "return Box(0, 0, crop_width",
        "test_imagenet_recipe",
        "a corner where no crop fits",
    ),
    Mutant(
        "dataset/decoding.py",
        "    short = min(width, height)\n",
        "    short = max(width, height)\n",
        "test_imagenet_recipe",
        "validation: longer side resized",
    ),
    Mutant(
        "dataset/decoding.py",
        "round((side - image_size) / 2)",
        "math.ceil((side - image_size) / 2)",
        "test_imagenet_recipe",
        "validation: the middle rounded up",
    ),
    Mutant(
        "dataset/decoding.py",
        "round((side - image_size) / 2)",
        "0",
        "test_imagenet_recipe",
        "validation: a corner",
    ),
    Mutant(
        "dataset/decoding.py",
        "int(resize * side / short)",
        "math.ceil(resize * side / short)",
        "test_imagenet_recipe",
        "validation: the longer side rounded up",
    ),
    Mutant(
        "dataset/decoding.py",
        "CROP_ATTEMPTS = 10",
        "CROP_ATTEMPTS = 1",
        "test_imagenet_recipe",
        "one attempt at a crop",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "flip(pixels, draws[:, 0] < 0.5)",
        "flip(pixels, draws[:, 0] < 0.6)",
        "test_imagenet_recipe",
        "ImageNet mirrored with another probability",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "flip(pixels, draws[:, 0] < 0.5)",
        "flip(pixels, draws[0, 0].expand(len(draws)) < 0.5)",
        "test_imagenet_recipe",
        "ImageNet: one flip for the whole batch",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "strengths * (2 * draws[:, 1:] - 1)",
        "strengths * (2 * draws[0, 1:] - 1).expand(len(draws), 4)",
        "test_imagenet_recipe",
        "one change of colours for the whole batch",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "strengths * (2 * draws[:, 1:] - 1)",
        "strengths * draws[:, 1:]",
        "test_imagenet_recipe",
        "colours only made stronger",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "    if any(loading.jitter):\n",
        "    if False:\n",
        "test_imagenet_recipe",
        "no change of colours",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "order = torch.randperm(4, generator=generator).tolist()",
        "order = list(range(4))",
        "test_imagenet_recipe",
        "order of the changes not drawn",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "torch.rand(loading.batch_size, 5, generator=generator)[loading.own][: len(pixels)]",
        "torch.rand(loading.batch_size, 5, generator=generator)[: len(pixels)]",
        "test_imagenet_recipe",
        "the same flips in all processes",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "random((loading.batch_size, CROP_ATTEMPTS, 4))[loading.own]",
        "random((loading.batch_size, CROP_ATTEMPTS, 4))",
        "test_imagenet_recipe",
        "the same crops in all processes",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "np.random.default_rng(derive_seed(seed, step))",
        "np.random.default_rng(derive_seed(seed))",
        "test_imagenet_recipe",
        "the same crops in each step",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "yield augment(pixels, loading, derive_seed(seed, 3, step)), labels",
        "yield augment(pixels, loading, derive_seed(seed, 3)), labels",
        "test_imagenet_recipe",
        "the same flips in each step",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "enumerate(decoded, start=first_step)",
        "enumerate(decoded)",
        "test_imagenet_recipe",
        "a resumed epoch of ImageNet augmented as its first steps",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "scale=loading.crop_scale",
        "scale=(0.08, 1.0)",
        "test_imagenet_recipe",
        "--crop_scale ignored",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "resize=loading.validation_resize",
        "resize=loading.image_size",
        "test_imagenet_recipe",
        "validation without resizing to more",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "loading.image_size, reduced=False",
        "loading.image_size, reduced=True",
        "test_imagenet_recipe",
        "validation images decoded at a part of their size",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "np.random.default_rng(derive_seed(seed, 1)).permutation(len(images))",
        "np.arange(len(images))",
        "test_imagenet_recipe",
        "ImageNet not shuffled",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "return whole + (rest >= 2 * self.world_size)",
        "return whole",
        "test_imagenet_recipe",
        "ImageNet's last batch left out",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "return whole + (rest >= 2 * self.world_size)",
        "return whole + (rest > 0)",
        "test_imagenet_recipe",
        "a last batch too small for batch norm",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "own = np.arange(len(images))[loading.own]",
        "own = np.arange(len(images))",
        "test_imagenet_recipe",
        "all processes validate on all of ImageNet",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "batches = [own[start : start + size] for start in range(0, len(own), size)]",
        "batches = [own[start : start + size] for start in range(0, len(own) - size + 1, size)]",
        "test_imagenet_recipe",
        "last validation batch left out",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "return normalize(pixels, *loading.statistics.tensors(loading.device))",
        "return normalize(pixels, *reversed(loading.statistics.tensors(loading.device)))",
        "test_imagenet_recipe",
        "mean and deviation swapped",
    ),
    Mutant(
        "dataset/image_list.py",
        "enumerate(sorted(set(classes)))",
        "enumerate(dict.fromkeys(classes))",
        "test_imagenet_recipe",
        "labels in the order first seen",
    ),
    Mutant(
        "dataset/image_list.py",
        'path = list_file(folder, "train")',
        "path = list_file(folder, split)",
        "test_imagenet_recipe",
        "train and val number their classes each for itself",
    ),
    Mutant(
        "dataset/encoded_images.py",
        "class_folders(train if train.is_dir() else self.folder)",
        "class_folders(self.folder)",
        "test_imagenet_recipe",
        "folders: train and val number their classes each for itself",
    ),
    Mutant(
        "dataset/img2lmdb.py",
        "encoded if image_size is None else _resized(image, image_size)",
        "_resized(image, image_size or min(image.size))",
        "test_imagenet_recipe",
        "images encoded anew for the LMDB",
    ),
    Mutant(
        "dataset/img2lmdb.py",
        "Image.Resampling.BILINEAR",
        "Image.Resampling.NEAREST",
        "test_imagenet_recipe",
        "another filter in img2lmdb.py --image_size",
    ),
    Mutant(
        "dataset/img2lmdb.py",
        "QUALITY = 95",
        "QUALITY = 75",
        "test_imagenet_recipe",
        "JPEGs of less quality",
    ),
    Mutant(
        "dataset/img2lmdb.py",
        "scale = image_size / min(image.size)",
        "scale = image_size / max(image.size)",
        "test_imagenet_recipe",
        "--image_size for the longer side",
    ),
    Mutant(
        "dataset/lmdb_set.py",
        'struct.Struct("<H")',
        'struct.Struct(">H")',
        "test_lmdb",
        "labels big-endian",
    ),
    Mutant(
        "dataset/lmdb_set.py",
        "msgpack.packb(image + LABEL.pack(label), use_bin_type=True)",
        "msgpack.packb(LABEL.pack(label) + image, use_bin_type=True)",
        "test_lmdb",
        "the label before the image",
    ),
    Mutant(
        "dataset/pixel_statistics.py",
        "(0.24703233, 0.24348505, 0.26158768)",
        "(0.2023, 0.1994, 0.2010)",
        "test_image_recipe",
        "CIFAR-10's deviation as others have it",
    ),
    Mutant(
        "dataset/pixel_statistics.py",
        "(0.5071, 0.4867, 0.4408)",
        "(0.4914, 0.4822, 0.4465)",
        "test_image_recipe",
        "CIFAR-100's mean",
    ),
    Mutant(
        "dataset/pixel_statistics.py",
        "(0.229, 0.224, 0.225)",
        "(0.229, 0.225, 0.224)",
        "test_imagenet_recipe",
        "ImageNet's deviation",
    ),
    Mutant(
        "imagenet_data.py",
        "round(image_size * 256 / 224)",
        "image_size",
        "test_imagenet_recipe",
        "validation without resizing to 256 by default",
    ),
    Mutant(
        "imagenet_data.py",
        "        processes.rank,\n        processes.size,\n",
        "",
        "test_imagenet_recipe",
        "ImageNet: rank and size left out",
    ),
    Mutant(
        "train.py",
        "statistics, derive_seed(args.seed, epoch),",
        "statistics, derive_seed(args.seed, 0),",
        "test_image_recipe",
        "the same batches in each epoch",
    ),
    Mutant(
        "train.py",
        "statistics, derive_seed(args.seed, epoch),",
        "statistics, derive_seed(0, epoch),",
        "test_image_recipe",
        "--seed ignored for batches",
    ),
    Mutant(
        "train.py",
        "processes.device, processes.rank, processes.size, first_step,",
        "processes.device, 0, 1, first_step,",
        "test_image_recipe",
        "training: rank and size left out",
    ),
    Mutant(
        "train.py",
        "processes.device, processes.rank, processes.size\n",
        "processes.device, 0, 1\n",
        "test_image_recipe",
        "validation: rank and size left out",
    ),
    Mutant(
        "train.py",
        "args.cutout, args.cutout_length)",
        "args.cutout)",
        "test_image_recipe",
        "--cutout_length ignored",
    ),
    Mutant(
        "train.py",
        'test_set = load_image_set(args.set, args.data, "test", args.image_size)',
        "test_set = train_set",
        "test_image_recipe",
        "validated on the training images",
    ),
    Mutant(
        "train.py",
        "image_statistics(args.set, train_set,",
        "image_statistics(args.set, test_set,",
        "test_image_recipe",
        "statistics of the test images",
    ),
    Mutant(
        "train.py",
        "args.image_size)\n    test_set",
        "None)\n    test_set",
        "test_image_recipe",
        "--image_size ignored for training images",
    ),
    Mutant(
        "train_imagenet.py",
        "jitter=tuple(args.color_jitter),",
        "",
        "test_imagenet_recipe",
        "--color_jitter ignored",
    ),
    Mutant(
        "train_imagenet.py",
        "crop_scale=tuple(args.crop_scale), ",
        "",
        "test_imagenet_recipe",
        "--crop_scale not passed on",
    ),
    Mutant(
        "train_imagenet.py",
        "Statistics(tuple(args.mean), tuple(args.std))",
        "IMAGENET",
        "test_imagenet_recipe",
        "--mean and --std ignored",
    ),
    Mutant(
        "train_imagenet.py",
        "train_images, loading, derive_seed(args.seed, epoch), first_step",
        "train_images, loading, derive_seed(args.seed), first_step",
        "test_imagenet_recipe",
        "ImageNet: the same batches in each epoch",
    ),
    Mutant(
        "train_imagenet.py",
        "color_jitter=[0.4, 0.4, 0.4, 0.2],",
        "color_jitter=[0.4, 0.4, 0.4, 0.1],",
        "test_imagenet_recipe",
        "another jitter of the hue",
    ),
    Mutant(
        "train_imagenet.py",
        "crop_scale=[0.08, 1.0],",
        "crop_scale=[0.2, 1.0],",
        "test_imagenet_recipe",
        "another smallest crop",
    ),
    Mutant(
        "train_imagenet.py",
        "evaluation_batches(validation_images, loading)",
        "evaluation_batches(train_images, loading)",
        "test_imagenet_recipe",
        "ImageNet validated on the training images",
    ),
    Mutant(
        "train_imagenet.py",
        "args.image_size, args.validation_resize, statistics,",
        "args.image_size, None, statistics,",
        "test_imagenet_recipe",
        "--validation_resize ignored in training",
    ),
    Mutant(
        "test.py",
        "        statistics = statistics_from_dict(description)",
        '        statistics = PUBLISHED_STATISTICS["cifar10"]',
        "test_image_recipe",
        "test.py: a checkpoint's own mean and deviation ignored",
    ),
    Mutant(
        "test.py",
        "statistics = PUBLISHED_STATISTICS[name]",
        'statistics = PUBLISHED_STATISTICS["cifar10"]',
        "test_image_recipe",
        "test.py: CIFAR-100 normalised as CIFAR-10",
    ),
    Mutant(
        "test.py",
        "image_statistics(name, train_set)",
        "image_statistics(name, test_set)",
        "test_image_recipe",
        "test.py: statistics of the test images",
    ),
    Mutant(
        "test_imagenet.py",
        "        statistics = statistics_from_dict(description)",
        "        pass",
        "test_imagenet_recipe",
        "test_imagenet.py: a checkpoint's own mean and deviation ignored",
    ),
    Mutant(
        "test_imagenet.py",
        'description.get("image_size", 224)',
        "224",
        "test_imagenet_recipe",
        "test_imagenet.py: a checkpoint's image size ignored",
    ),
    Mutant(
        "test_imagenet.py",
        'resize = description.get("validation_resize")',
        "pass",
        "test_imagenet_recipe",
        "test_imagenet.py: a checkpoint's resize ignored",
    ),
    Mutant(
        "test_imagenet.py",
        "if resize is None and args.image_size is None:",
        "if resize is None:",
        "test_imagenet_recipe",
        "test_imagenet.py: a checkpoint's resize with another image size",
    ),
    Mutant(
        "hubconf.py",
        '_network("cifar", "cifar100", pretrained,',
        '_network("cifar", "cifar10", pretrained,',
        "test_image_recipe",
        "another set's mean and deviation in the hub's CIFAR-100",
    ),
    Mutant(
        "hubconf.py",
        '_network("imagenet", "imagenet", pretrained,',
        '_network("imagenet", "cifar10", pretrained,',
        "test_image_recipe",
        "another set's mean and deviation in the hub's ImageNet",
    ),
    Mutant(
        "hubconf.py",
        "            statistics = statistics_from_dict(description)",
        '            statistics = PUBLISHED_STATISTICS["cifar10"]',
        "test_image_recipe",
        "the hub ignores a checkpoint's own mean and deviation",
    ),
    Mutant(
        "export.py",
        "self.network((images - self.mean) / self.std)",
        "self.network(images)",
        "test_image_recipe",
        "exported without normalisation",
    ),
    Mutant(
        "export.py",
        "self.network((images - self.mean) / self.std)",
        "self.network(images / self.std - self.mean)",
        "test_image_recipe",
        "exported with the normalisation the other way round",
    ),
    Mutant(
        "export.py",
        'else f"cifar{classes}"',
        'else "cifar10"',
        "test_image_recipe",
        "exported with another set's mean and deviation",
    ),
]

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
