"""One step's arithmetic on the devices that do it."""
