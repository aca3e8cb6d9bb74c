"""Landing kits: a registered file with all that a device or server needs beside it."""
