"""The networks in other tasks, as in the paper's section on transfer, and all that those need."""
