"""What is to be forgotten, kept and asked: records, photos, readers and label masking."""
