"""What people may see of isoproxy at work: log, metrics, the state told to systemd."""
