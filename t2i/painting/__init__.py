"""What drawn worlds are painted with."""
