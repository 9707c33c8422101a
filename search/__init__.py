"""What a search needs beside the method: a candidate's turn, other learners, where it stands."""
