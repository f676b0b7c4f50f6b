"""Names that are not in the DNS: `.bit`, resolved under an isolation key."""
