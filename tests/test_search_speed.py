"""The plain way that the search is timed against is what its author would have written."""

import torch

from benchmarks.search_speed import LoadedData, load_data, parse_arguments


def test_workers_of_the_plain_way_are_forked_and_do_not_import_pytorch_again():
    args = parse_arguments(["--set", "digits", "--images", "9"])
    loaded = LoadedData(load_data(args, torch.device("cpu")))
    for loader in (loaded.train_loader, loaded.validation_loader):
        assert loader.num_workers == 2
        assert loader.multiprocessing_context.get_start_method() == "fork"
