"""The stream processes and the main process's side of them: channel, messages, supervision."""
