"""What every process needs: communicator, stop signals, console, files, errors."""
