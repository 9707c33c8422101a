"""What people look at: run histories, pages, charts, cells."""
