"""What experience is: its shapes, its storage, its samples."""
