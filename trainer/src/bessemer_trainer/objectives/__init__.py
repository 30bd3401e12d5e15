"""What training minimises, one published loss a file. Pure torch: no files, no ranks, no engine, no configuration."""
