"""The supernet: what is active, what a candidate computes, and what a turn leaves behind."""

import math

import pytest
import torch
from helpers import operations_of

from dataset.augmentation import Augmentation
from dataset.batching import Batching
from dataset.image_batches import ImageBatches
from dataset.image_set import ImageSet, Statistics
from genotypes import DARTS_V2, PRIMITIVES, RelativeNAS
from model import NetworkCIFAR
from model_search import Supernet, operation_index
from search.candidate import CandidateTrainer, TrainingRecipe
from slow_fast_learning import slow_and_fast, update_weight_set

RECIPE = TrainingRecipe(
    learning_rate=0.1, momentum=0.9, weight_decay=3e-4, grad_clip=5.0, drop_path_prob=0.2
)


def make_supernet(layers=3, seed=0):
    torch.manual_seed(seed)
    return Supernet(4, 3, layers)


def make_trainer(supernet, label_count=3, recorder=None, batch_size=8):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (40, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.randint(label_count, (40,), generator=generator)
    data = ImageBatches(
        ImageSet(images[:20], labels[:20], 3),
        ImageSet(images[20:], labels[20:], 3),
        Augmentation(1, True, 2),
        Statistics((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        Batching(batch_size, torch.device("cpu")),
    )
    return CandidateTrainer(supernet, data, torch.float32, 100, recorder)


def snapshot(supernet):
    return {name: tensor.clone() for name, tensor in supernet.state_dict().items()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_every_edge_has_every_primitive_once():
    indices = [
        operation_index(node, source, primitive)
        for node in range(4)
        for source in range(node + 2)
        for primitive in PRIMITIVES
    ]
    assert indices == list(range(14 * 7))


def test_supernet_has_the_originals_parameters():
    supernet = Supernet(16, 10, 8)
    assert sum(parameter.numel() for parameter in supernet.parameters()) == 1_987_194
    assert len(supernet.state_dict()) == 4_922


@pytest.mark.parametrize("genotype", [DARTS_V2, RelativeNAS])
def test_a_candidate_computes_what_the_network_from_scratch_does(genotype):
    supernet = make_supernet(layers=4).eval()
    network = NetworkCIFAR(4, 3, 4, False, genotype).eval()
    arch_info = supernet.arch_info(genotype)
    weights = {}
    for name, tensor in supernet.state_dict().items():
        if "._ops." not in name:
            weights[name] = tensor
    for number, active in enumerate(arch_info):
        for position, index in enumerate(active):
            operation = operations_of(supernet.cells[number])[index]
            weights |= operation.state_dict(prefix=f"cells.{number}._ops.{position}.")
    network.load_state_dict(weights)
    images = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(supernet(images, arch_info), network(images)[0])


def test_only_active_tensors_are_run_trained_and_touched():
    supernet = make_supernet()
    arch_info = supernet.arch_info(RelativeNAS)
    active = supernet.active_tensors(arch_info)
    before = snapshot(supernet)
    ran = set()
    for name, module in supernet.named_modules():
        if "._ops." in name and name.count(".") == 3:
            module.register_forward_hook(lambda *_, name=name: ran.add(name))
    make_trainer(supernet).train(RelativeNAS, RECIPE, seed=3)
    touched = changed(before, supernet.state_dict())
    assert touched and touched <= active.keys()
    expected = {
        f"cells.{number}._ops.{index}" for number, cell in enumerate(arch_info) for index in cell
    }
    assert ran == expected
    # Gradients cost memory for the active weights only, and none once the turn is over.
    assert all(parameter.grad is None for parameter in supernet.parameters())


def test_a_turn_leaves_the_weight_set_and_repeats_exactly():
    supernet = make_supernet()
    before = snapshot(supernet)
    trainer = make_trainer(supernet)
    first = trainer.take_turn(DARTS_V2, RECIPE, seed=3)
    assert not changed(before, supernet.state_dict())
    second = trainer.take_turn(DARTS_V2, RECIPE, seed=3)
    assert first.loss == second.loss
    assert not changed(first.weights, second.weights)
    assert changed(before, before | dict(first.weights))
    assert trainer.take_turn(DARTS_V2, RECIPE, seed=4).loss != first.loss


def test_after_a_pair_each_weight_comes_from_the_right_network():
    supernet = make_supernet()
    before = snapshot(supernet)
    trainer = make_trainer(supernet)
    genotypes = {4: RelativeNAS, 9: DARTS_V2}
    outcomes = {member: trainer.take_turn(g, RECIPE, 3) for member, g in genotypes.items()}
    slow, fast = slow_and_fast((4, 9), (outcomes[4].loss, outcomes[9].loss))
    assert outcomes[fast].loss < outcomes[slow].loss
    update_weight_set(supernet.state_dict(), outcomes[fast].weights, outcomes[slow].weights)

    operations = {
        member: {
            f"cells.{number}._ops.{index}."
            for number, active in enumerate(supernet.arch_info(genotype))
            for index in active
        }
        for member, genotype in genotypes.items()
    }
    counts = {"fast": 0, "slow": 0, "both": 0, "neither": 0, "outside": 0}
    for name, tensor in supernet.state_dict().items():
        operation = ".".join(name.split(".")[:4]) + "."
        in_fast, in_slow = operation in operations[fast], operation in operations[slow]
        if "._ops." not in name:
            case, expected = "outside", outcomes[fast].weights[name]
        elif in_fast:
            case = "both" if in_slow else "fast"
            expected = outcomes[fast].weights[name]
        elif in_slow:
            case, expected = "slow", outcomes[slow].weights[name]
        else:
            case, expected = "neither", before[name]
        counts[case] += 1
        assert torch.equal(tensor, expected), (case, name)
    assert all(counts.values()), counts


def test_a_candidate_whose_loss_is_not_finite_gives_no_weights():
    supernet = make_supernet()
    before = snapshot(supernet)
    trainer = make_trainer(supernet)
    broken = TrainingRecipe(1e30, 0.9, 3e-4, 1e30, 0.0)
    outcome = trainer.take_turn(DARTS_V2, broken, seed=3)
    assert not math.isfinite(outcome.loss)
    assert outcome.weights is None
    assert not changed(before, supernet.state_dict())


def test_non_finite_weights_never_reach_the_weight_set():
    supernet = make_supernet()
    trainer = make_trainer(supernet)
    good = trainer.take_turn(RelativeNAS, RECIPE, seed=3)
    before = snapshot(supernet)
    update_weight_set(supernet.state_dict(), good.weights, None)
    assert changed(before, supernet.state_dict()) <= good.weights.keys()
    before = snapshot(supernet)
    update_weight_set(supernet.state_dict(), None, None)
    assert not changed(before, supernet.state_dict())


def test_recomputing_changes_nothing_but_the_memory():
    def train(recompute):
        torch.manual_seed(0)
        supernet = Supernet(4, 3, 3, recompute)
        supernet.drop_path_prob = 0.3
        images = torch.randn(8, 3, 12, 12)
        kept = {}

        def count(tensor):
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor.detach()

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = supernet(images, supernet.arch_info(RelativeNAS)).sum()
        loss.backward()
        gradients = {name: p.grad for name, p in supernet.named_parameters() if p.grad is not None}
        return supernet.state_dict(), gradients, sum(kept.values())

    plain_state, plain_gradients, plain_kept = train(recompute=False)
    state, gradients, kept = train(recompute=True)
    assert not changed(plain_state, state)
    assert gradients.keys() == plain_gradients.keys()
    assert not changed(plain_gradients, gradients)
    assert kept < plain_kept / 2
